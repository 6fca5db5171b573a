"""Tune one library on one split and score: `python peer_breadth.py FOLDER LIBRARY`, under the Python of breadth.txt.

FOLDER holds train, val and test.parquet, with the inputs and the label as a number `y`, and order.json: `columns` (name
to kind), `task`, `metric`, `n_classes`, `dated` and `rungs`, rising seconds of the processor. The first trial has the
library's defaults, the others are Optuna's. By 5 folds (3 above 5,000 rows; of dated rows, and above 20,000, the
validation rows alone) the best trial that ended within a rung is chosen, fitted to training and validation rows
together, and scores the test rows into FOLDER/LIBRARY-<rung>.npy. The seconds of those last fits do not count. A
search ends early after N_TRIALS. The figures of each rung are printed as JSON on the last line.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from breadth_data import SEED, Clock, Data, many
from breadth_linear import Linear
from breadth_trees import CatBoost, LightGBM

N_TRIALS = 100

LIBRARIES = {"lightgbm": LightGBM, "catboost": CatBoost, "linear": Linear}


def main() -> None:
    """Search until the last rung is passed; at each rung, score with the best so far."""
    folder, library = Path(sys.argv[1]), sys.argv[2]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    data = Data(folder)
    rungs = list(data.order["rungs"])
    clock = Clock(rungs[-1])
    peer = LIBRARIES[library](data, clock)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=SEED))
    figures: dict[str, dict] = {}
    while rungs:
        trial = study.ask()
        study.tell(trial, peer.try_out(trial))
        seconds, ended = clock.seconds(), len(study.trials) >= N_TRIALS
        while rungs and (seconds > rungs[0] or ended):
            rung = rungs.pop(0)
            found = {"seconds": round(seconds, 1), "trials": len(study.trials)}
            # The trial that passed the rung counts, so that each peer has a little more time than wanted.
            figures[str(rung)] = found | clock.without(
                lambda rung=rung: scored(peer.finish(study.best_trial), folder / f"{library}-{rung}.npy", data)
            )
    print(json.dumps(figures))


def scored(score: Callable[[pd.DataFrame], np.ndarray], file: Path, data: Data) -> dict:
    """Write the scores of the test rows; return how many rows are scored in a second of the processor."""
    np.save(file, np.asarray(score(data.test), np.float32))
    rows, repeats, began = many(data.test), 0, time.process_time()
    while not repeats or time.process_time() - began < 0.3:
        score(rows)
        repeats += 1
    return {"rows_per_second": round(repeats * len(rows) / (time.process_time() - began))}


if __name__ == "__main__":
    main()
