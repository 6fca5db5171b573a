"""Default entries on many small products beside the own baseline, LightGBM and a linear model: what a newcomer gets.

Every set of `breadth_sets` is declared by its columns and target alone, all else are defaults; it is split, trained and
measured by the project's own stages, without DVC. The peers see the same columns, and learn from training and
validation rows together. The difference of a set is the mean over its splits, its interval Student's over them; an
error such as the MAE is given with its sign changed, so that more is always better. A draw is a difference within the
interval.

LAMPLIGHTER_BREADTH=quick takes one split and only the sets that are quick; a comma-separated list takes these sets.
"""

import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.breadth_sets import UNSEEN, Set, install, sets, split
from benchmarks.intervals import student_interval
from benchmarks.report import Result, Target
from model.evaluation.metrics import evaluate_metric
from model.features.fitting import Table
from model.features.kinds import KINDS
from model.heads import LOWER_IS_BETTER, head_of
from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.training.fine_tuning import fine_tune
from tasks.training.measuring import measure
from tasks.training.pretraining import pretrain

N_SPLITS = 3
QUICK = ("iris", "tumours", "diabetes", "cars", "fuel", "diamonds", "weather", "seats")
OURS, BASELINE, LIGHTGBM, LINEAR = "lamplighter", "own baseline", "LightGBM", "linear"
PEERS = (BASELINE, LIGHTGBM, LINEAR)
SEED = 0


def run() -> Result:
    """Measure every set on every split."""
    asked = os.environ.get("LAMPLIGHTER_BREADTH", "")
    quick = asked == "quick"
    chosen = sets(QUICK if quick else tuple(filter(None, asked.split(","))))
    return result([measure_set(one, 1 if quick else N_SPLITS) for one in chosen])


def measure_set(one: Set, n_splits: int) -> dict[str, Any]:
    """Return the metric of each model on each split, and the seconds that ours took."""
    values: dict[str, list[float]] = {name: [] for name in (OURS, *PEERS)}
    seconds = []
    for seed in range(n_splits):
        with tempfile.TemporaryDirectory() as folder:
            found, took = measure_split(one, split(one, seed), Path(folder))
        for name, value in found.items():
            values[name].append(value)
        seconds.append(took)
    means = ", ".join(f"{name} {np.mean(each):.4f}" for name, each in values.items())
    print(f"BREADTH {one.name} ({one.metric}): {means}; {np.mean(seconds):.0f} s", flush=True)
    return {"set": one, "values": values, "seconds": float(np.mean(seconds))}


def declare(one: Set) -> Product:
    """Return the product that a newcomer's entry of this set is: columns and target, all else a default."""
    entry = {
        "source": {"kind": "csv", "url": "rows.csv"},
        "key": ["row"],
        "columns": one.columns,
        "target": {"name": one.target, "task": one.task},
        "gates": {"metric": one.metric, "limit": 1e9 if one.metric in LOWER_IS_BETTER else 0.0},
        **({"time": one.days, "split": {"by": "time"}} if one.days else {"split": {"by": "hash"}}),
    }
    return params.parse({"as_of": "2020-01-01", "products": {one.name: entry}}).product(one.name)


def measure_split(one: Set, parts: dict[str, pd.DataFrame], root: Path) -> tuple[dict[str, float], float]:
    """Return the metric of each model, more always better, and the seconds of our training."""
    product, paths = declare(one), Paths(one.name, root=root)
    for name, rows in parts.items():
        write_table(paths.splits / f"{name}.parquet", typed(one, rows))
    write_table(paths.splits / "pretrain.parquet", typed(one, parts["train"]))
    began = time.monotonic()
    pretrain(product, paths)
    print(fine_tune(product, paths).summary, flush=True)
    took = time.monotonic() - began
    measured = measure(product, paths)
    sign = -1 if one.metric in LOWER_IS_BETTER else 1
    found = {OURS: measured.by_scorer["model"][one.metric], BASELINE: measured.by_scorer["baseline"][one.metric]}
    known = tuple(c for c in measured.classes)
    tables = {name: model_inputs.split_part(paths.splits, name, product) for name in parts}
    fitted = {
        name: np.concatenate([tables[part].read_all()[name] for part in ("train", "val")]) for name in product.columns
    }
    y = np.concatenate([model_inputs.targets(tables[part].labels, product, known) for part in ("train", "val")])
    test = tables["test"].read_all()
    for peer, score in ((LIGHTGBM, boosted), (LINEAR, linear)):
        scores = score(product.columns, fitted, y, test, one.task, len(known))
        found[peer] = evaluate_metric(one.task, measured.y, scores, one.metric)
    return {name: sign * float(value) for name, value in found.items()}, took


def typed(one: Set, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as `validate` would leave them."""
    frame = pd.DataFrame({"row": np.arange(len(rows)).astype(str)})
    for name, kind in one.columns.items():
        cells = KINDS[kind].cells
        column = rows[name]
        frame[name] = column.astype("str").where(column.notna(), None) if cells == "str" else column.astype(cells)
    frame[one.target] = rows[one.target]
    if one.days and one.days not in frame:
        frame[one.days] = rows[one.days].astype("datetime64[s]")
    return frame


def boosted(columns: dict[str, str], table: Table, y: np.ndarray, test: Table, task: str, n_classes: int) -> np.ndarray:
    """Return the scores of LightGBM, with rounds and rate chosen by cross-validation; words count as TF-IDF columns."""
    lightgbm = _lightgbm()
    inputs, inputs_test = _plain(columns, table, test)
    categories = [i for i, name in enumerate(columns) if columns[name] == "category"]
    objective = {"regression": "regression", "binary": "binary", "multiclass": "multiclass"}[task]
    settings = {"objective": objective, "verbosity": -1, "num_threads": 1, "seed": SEED, "num_leaves": 15}
    settings |= {"min_data_in_leaf": max(3, min(20, len(y) // 20)), "subsample": 0.8, "bagging_freq": 1}
    settings |= {"feature_fraction": 0.8, "num_class": n_classes} if task == "multiclass" else {"feature_fraction": 0.8}
    best: tuple[float, dict, int] | None = None
    for rate in (0.03, 0.1):
        data = lightgbm.Dataset(inputs, y, categorical_feature=categories, free_raw_data=False)
        tried = {**settings, "learning_rate": rate}
        stop = lightgbm.early_stopping(30, verbose=False)
        kept = lightgbm.cv(tried, data, 1000, nfold=5, stratified=task != "regression", seed=SEED, callbacks=[stop])
        losses = next(values for name, values in kept.items() if name.endswith("-mean"))
        if best is None or losses[-1] < best[0]:
            best = (losses[-1], tried, len(losses))
    assert best is not None
    data = lightgbm.Dataset(inputs, y, categorical_feature=categories)
    return np.asarray(lightgbm.train(best[1], data, best[2]).predict(inputs_test), np.float32)


def linear(columns: dict[str, str], table: Table, y: np.ndarray, test: Table, task: str, n_classes: int) -> np.ndarray:
    """Return the scores of scikit-learn's linear model on TF-IDF, one-hot and numbers, its strength cross-validated."""
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GridSearchCV

    inputs = importlib.import_module("model.evaluation.baseline")._LinearInputs(columns)
    rows, rows_test = inputs.fit_transform(table), inputs.transform(test)
    if task == "regression":
        return RidgeCV(np.logspace(-3, 3, 13)).fit(rows.toarray(), y).predict(rows_test.toarray()).astype(np.float32)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1, 10, 100]}, scoring="neg_log_loss", cv=5)
    head = head_of(task)
    return head.estimator_scores(search.fit(rows, y), rows_test, n_classes)


def _lightgbm() -> Any:
    folder = str(install())
    sys.path.append(folder)
    try:
        return importlib.import_module("lightgbm")
    finally:
        sys.path.remove(folder)


def _plain(columns: dict[str, str], table: Table, test: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return what trees read: categories as ordinals, times as parts with the year, words as 50 topics of TF-IDF."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import OrdinalEncoder

    parts: list[list[np.ndarray]] = []
    late: list[list[np.ndarray]] = []
    for name, kind in columns.items():
        cells = [table[name], test[name]]
        if kind == "category":
            encoder = OrdinalEncoder(
                handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1
            ).fit(cells[0][:, None])
            parts.append([encoder.transform(each[:, None]) for each in cells])
        elif kind == "time":
            parts.append([_time(each) for each in cells])
        elif kind == "text":
            words = TfidfVectorizer(sublinear_tf=True, min_df=2).fit([cell or "" for cell in cells[0]])
            bags = [words.transform([cell or "" for cell in each]) for each in cells]
            topics = TruncatedSVD(min(50, bags[0].shape[1] - 1), random_state=SEED).fit(bags[0])
            late.append([topics.transform(bag) for bag in bags])
        else:
            parts.append([each[:, None] for each in cells])
    sides = [np.concatenate(side, axis=1).astype(np.float64) for side in zip(*parts, *late, strict=True)]
    return sides[0], sides[1]


def _time(column: np.ndarray) -> np.ndarray:
    at = pd.DatetimeIndex(column)
    return np.stack([at.year, at.dayofyear, at.dayofweek, at.hour * 60 + at.minute, at.asi8 / 86_400], axis=1)


def result(measured: list[dict[str, Any]]) -> Result:
    """Return the tables: seen sets, the unseen third apart, and wins, draws and losses."""
    tables = {}
    for title, of in (("Sets", False), ("Sets that nothing was chosen on", True)):
        rows = [_row(each) for each in measured if (each["set"].name in UNSEEN) == of]
        if rows:
            tables[title] = rows
    tables["Wins, draws and losses"] = [_tally(measured, peer) for peer in PEERS]
    behind = [each["set"].name for each in measured if _behind(each, BASELINE)]
    target = Target(
        name="breadth: sets behind the own baseline by more than noise",
        wanted="none",
        measured=", ".join(behind) or "none",
        met=not behind,
    )
    return Result(name="breadth", tables=tables, targets=[target])


def _row(each: dict[str, Any]) -> dict[str, Any]:
    one, values = each["set"], each["values"]
    row: dict[str, Any] = {"set": one.name, "rows": min(len(one.table), 5000), "metric": one.metric}
    row |= {name: round(float(np.mean(found)), 4) for name, found in values.items()}
    best = max(PEERS, key=lambda peer: np.mean(values[peer]))
    difference = np.subtract(values[OURS], values[best])
    reach = ""
    if len(difference) > 1:
        low, high = student_interval(difference)
        reach = f" ({low:+.4f} to {high:+.4f})"
    return {**row, "against the best peer": f"{difference.mean():+.4f}{reach}", "seconds": round(each["seconds"], 1)}


def _behind(each: dict[str, Any], peer: str) -> bool:
    difference = np.subtract(each["values"][OURS], each["values"][peer])
    noise = difference.std(ddof=1) if len(difference) > 1 else 0.0
    return bool(difference.mean() < -noise - 1e-9)


def _tally(measured: list[dict[str, Any]], peer: str) -> dict[str, Any]:
    wins = draws = losses = 0
    for each in measured:
        difference = np.subtract(each["values"][OURS], each["values"][peer])
        noise = difference.std(ddof=1) if len(difference) > 1 else 0.0
        wins += bool(difference.mean() > noise)
        losses += bool(difference.mean() < -noise)
        draws += bool(abs(difference.mean()) <= noise)
    return {"against": peer, "wins": wins, "draws": draws, "losses": losses}
