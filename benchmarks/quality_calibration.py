"""Whether probabilities mean what they say of flights of the days to come, by the way in which they were calibrated.

As the product does it: on each date a network is fitted on the flights of `split.train_days` days, calibrated on the
`split.val_days` after them, and judged on the seven days after those. The same network is calibrated in each way, so
that nothing else differs. The way that the product uses was chosen on most of the OTHERS; one seed each.

Lower is better of both. An interval is Student's over the dates, of the difference to no calibration.
"""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.quality_tables import (
    AS_OF,
    OTHERS,
    TEST_DAYS,
    around,
    interval,
    known_flights,
    scores_of,
    trained_on_flights,
)
from benchmarks.report import Result, Target
from model.calibration import calibrate
from model.metrics import evaluate_scores
from tasks import params, tables
from tasks.params import Product

OURS, PLATT, NONE = "Lamplighter: a day is one observation", "Platt: every row is one", "none"
METRICS = {"log_loss": "log loss", "ece": "calibration error"}

Found = dict[str, dict[str, float]]
"""Way of calibration to its metrics."""


def run() -> Result:
    """Log loss and calibration error on the days after each date, in each way."""
    product, rows = params.load().product("flight-delays"), known_flights()
    found = [_measure(product, rows, as_of) for as_of in tqdm(AS_OF + OTHERS, desc="calibration", unit="date")]
    six, others = found[: len(AS_OF)], found[len(AS_OF) :]
    losses = _differences(found, OURS, "log_loss")
    return Result(
        name="quality",
        tables={
            f"flight-delays: calibration, {TEST_DAYS} days after the six dates": _compared(six),
            f"flight-delays: calibration, {TEST_DAYS} days after the {len(OTHERS)} other dates": _compared(others),
        },
        targets=[
            Target(
                name="flight-delays: log loss, all dates",
                wanted="not above that without calibration",
                measured=_said(losses),
                met=bool(losses.mean() <= 0),
            )
        ],
    )


def _measure(product: Product, rows: pd.DataFrame, as_of: str) -> Found:
    n_train, n_val = product.split.train_days, product.split.val_days
    assert n_train is not None
    assert n_val is not None
    known, scored = around(rows, as_of, n_train + n_val)
    later = known["date"] >= str(date.fromisoformat(as_of) - timedelta(days=n_val))
    fitted, held = (known[part].reset_index(drop=True) for part in (~later, later))
    network, features = trained_on_flights(product, fitted, held, replace(product.model.train, calibrate=False))
    classes = tables.classes(fitted, product)
    encoded, truths, answers = (
        features.encode(tables.inputs(held, product)),
        tables.targets(held, product, classes),
        tables.targets(scored, product, classes),
    )
    found = {}
    for way, n_later_days in ((NONE, None), (PLATT, None), (OURS, held["date"].nunique())):
        if way != NONE:
            calibrate(network, encoded, truths, product.model.train.batch_tokens, n_later_days)
        scores = scores_of(network, features, tables.inputs(scored, product))
        metrics = evaluate_scores("binary", answers, scores, classes)
        found[way] = {metric: metrics[metric] for metric in METRICS}
    return found


def _compared(found: list[Found]) -> list[dict[str, str | float]]:
    return [
        {
            "calibration": way,
            **{title: float(np.mean([its[way][metric] for its in found])) for metric, title in METRICS.items()},
            **{
                f"{title} against {NONE}": "" if way == NONE else _said(_differences(found, way, metric))
                for metric, title in METRICS.items()
            },
        }
        for way in (OURS, PLATT, NONE)
    ]


def _differences(found: list[Found], way: str, metric: str) -> np.ndarray:
    return np.array([its[way][metric] - its[NONE][metric] for its in found])


def _said(differences: np.ndarray) -> str:
    return "{:+.4f} ({:+.4f} to {:+.4f})".format(differences.mean(), *interval(differences))
