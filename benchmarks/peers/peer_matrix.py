"""Fit one peer and score: `python peer_matrix.py FOLDER LINE PEER`, under the Python of matrix.txt.

FOLDER holds train, val and test.parquet as the product's splits have them, with the label as a number `y`, other
sources that the product declares, and order.json: `columns` (name to kind), `task`, `label`, `classes`, `history`,
`key` and `time`. A peer learns from training and validation rows and scores the held-out rows into FOLDER/PEER.npy; one
that makes rows writes FOLDER/PEER rows.parquet. One thread; seconds are those of the processor. What it took is printed
as JSON on the last line.
"""

import gc
import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from breadth_data import many
from matrix.data import Data

MODULES = {
    "credit-risk": "credit",
    "next-destination": "lists",
    "customer-value": "customers",
    "digits": "pictures",
    "fashion-mnist": "pictures",
    "unusual-flights": "unusual",
    "unusual-flights, made rows": "made",
    "headlines": "texts",
    "news-topics": "texts",
}
LEAST_SECONDS = 0.3
"""Rows are scored again until so much has passed."""
N_MADE = 10_000
"""Rows that are made up."""


def main() -> None:
    """Fit, score, and time the scoring."""
    folder, asked, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    peer_class = importlib.import_module(f"matrix.{MODULES[asked]}").PEERS[name]
    data = Data(folder)
    began = time.process_time()
    peer = peer_class(data)
    seconds = time.process_time() - began
    training_bytes = most_held()
    test = data.test
    del data
    gc.collect()
    forget_most_held()
    made = hasattr(peer, "make")
    speed, scoring_bytes = of_making(peer, folder, name) if made else of_scoring(peer, test, folder, name)
    figures = {"seconds": seconds, "rows_per_second": speed}
    print(json.dumps({**figures, "training_bytes": training_bytes, "scoring_bytes": scoring_bytes}))


def of_scoring(peer: object, test: pd.DataFrame, folder: Path, name: str) -> tuple[int, int | None]:
    """Write the scores; return rows scored in a second, and the most memory that was held."""
    scores = np.asarray(peer.score(test), np.float32)
    scoring_bytes = most_held()
    np.save(folder / f"{name.replace('/', '-')}.npy", scores)
    rows, repeats, began = many(test), 0, time.process_time()
    while not repeats or time.process_time() - began < LEAST_SECONDS:
        peer.score(rows)
        repeats += 1
    return round(repeats * len(rows) / (time.process_time() - began)), scoring_bytes


def of_making(peer: object, folder: Path, name: str) -> tuple[int, int | None]:
    """Write the rows that it makes; return rows made in a second, and the most memory that was held."""
    began = time.process_time()
    rows = peer.make(N_MADE)
    speed = round(len(rows) / (time.process_time() - began))
    scoring_bytes = most_held()
    rows.to_parquet(folder / f"{name} rows.parquet")
    return speed, scoring_bytes


def most_held() -> int | None:
    """Return the most memory that this process has held, in bytes, where Linux tells it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024


def forget_most_held() -> None:
    """Begin again with what is held now. Source: Linux, Documentation/filesystems/proc.rst, clear_refs."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


if __name__ == "__main__":
    main()
