"""Run AutoGluon on one split: `python peer_autogluon.py FOLDER PRESET SECONDS`, under the Python of breadth.txt.

FOLDER is that of peer_breadth.py. AutoGluon's clock is the processor's, so that the time limit is one of work and not
of a machine that others use too; one thread, one process, no GPU. Scores go to FOLDER/PRESET-<seconds>.npy, the figures
are printed as JSON on the last line.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from breadth_data import LABEL, many

STARTED, CPU = time.time(), time.process_time()
METRICS = {"auc": "roc_auc", "macro_f1": "f1_macro", "log_loss": "log_loss", "r2": "r2", "mae": "mean_absolute_error"}


def processor_time() -> float:
    """Return the time at the start and the seconds of work since."""
    return STARTED + time.process_time() - CPU


def main() -> None:
    """Fit, score."""
    folder, preset, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    order = json.loads((folder / "order.json").read_text())
    train, val, test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "val", "test"))
    from autogluon.tabular import TabularPredictor

    time.time = processor_time
    began = time.time()
    fitted = pd.concat([train, val], ignore_index=True)
    if order["task"] != "regression":
        fitted[LABEL] = fitted[LABEL].astype(int)
    predictor = TabularPredictor(
        label=LABEL,
        problem_type=order["task"],
        eval_metric=METRICS[order["metric"]],
        path=str(folder / f"autogluon-{preset}"),
        verbosity=0,
        log_to_file=False,
    )
    one_process = {"fold_fitting_strategy": "sequential_local"}
    options = {"num_cpus": 1, "num_gpus": 0, "ag_args_ensemble": one_process}
    predictor.fit(fitted, presets=f"{preset}_quality", time_limit=seconds, **options)
    took = time.time() - began
    rows = test.drop(columns=LABEL)
    np.save(folder / f"{preset}-{seconds}.npy", score(predictor, rows, order).astype(np.float32))
    timed, began = many(rows), time.process_time()
    score(predictor, timed, order)
    speed = len(timed) / (time.process_time() - began)
    models = len(predictor.model_names())
    print(json.dumps({"seconds": round(took, 1), "trials": models, "rows_per_second": round(speed)}))


def score(predictor: object, rows: pd.DataFrame, order: dict) -> np.ndarray:
    """Return numbers, the probability of a yes, or that of each class."""
    if order["task"] == "regression":
        return predictor.predict(rows).to_numpy()
    found = predictor.predict_proba(rows)
    if order["task"] == "binary":
        return found[1].to_numpy()
    scores = np.zeros((len(rows), order["n_classes"]))
    scores[:, found.columns.astype(int)] = found.to_numpy()
    return scores


if __name__ == "__main__":
    main()
