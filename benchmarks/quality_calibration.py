"""Whether probabilities mean what they say of flights of the days to come, by the way in which they were calibrated.

As the product does it: on each date a network is fitted on the flights of `split.train_days` days, calibrated on the
`split.val_days` after them, and judged on the seven days after those. The same network is calibrated in each way, so
that nothing else differs. At last it is trained once more on all those days, as `train.refit` has it, and keeps figures
scale: that is what the product uses. Its way was chosen on most of the OTHERS; one seed each.

An interval is Student's over the dates, of the difference to no calibration.
"""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.intervals import with_interval
from benchmarks.quality_tables import (
    AS_OF,
    OTHERS,
    TEST_DAYS,
    around,
    known_flights,
    scores_of,
    trained_on_flights,
)
from benchmarks.report import Result, Target
from model.evaluation.metrics import evaluate_scores
from model.features.fitted import Features
from model.network.network import Network
from model.training.calibration import calibrate
from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs

NONE, PLATT = "none", "Platt: every row is an observation"
BY_DAY, AGAIN = "Lamplighter: a day is one", "Lamplighter: the same, and trained once more"
WAYS = (NONE, PLATT, BY_DAY, AGAIN)
METRICS = {"auc": "AUC", "log_loss": "log loss", "ece": "calibration error"}

Found = dict[str, dict[str, float]]
"""Way of calibration to its metrics."""


def run() -> Result:
    """Measure log loss and calibration error on the days after each date, in each way."""
    product, rows = params.load().product("flight-delays"), known_flights()
    found = [_measure(product, rows, as_of) for as_of in tqdm(AS_OF + OTHERS, desc="calibration", unit="date")]
    six, others = found[: len(AS_OF)], found[len(AS_OF) :]
    losses = _differences(found, AGAIN, "log_loss")
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
                measured=with_interval(losses),
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
    classes, training = model_inputs.classes(fitted, product), replace(product.model.train, calibrate=False)
    truths, answers = (model_inputs.targets(part, product, classes) for part in (held, scored))

    def measured(network: Network, features: Features) -> dict[str, float]:
        scores = scores_of(network, features, model_inputs.inputs(scored, product))
        metrics = evaluate_scores("binary", answers, scores, classes)
        return {metric: metrics[metric] for metric in METRICS}

    network, features = trained_on_flights(product, fitted, held, training)
    encoded, found = features.encode(model_inputs.inputs(held, product)), {NONE: measured(network, features)}
    for way, n_later_days in ((PLATT, None), (BY_DAY, n_val)):
        calibrate(network, encoded, truths, training.batch_tokens, n_later_days)
        found[way] = measured(network, features)
    refitted = trained_on_flights(product, known, held, training, first=network, n_later_days=n_val)
    return {**found, AGAIN: measured(*refitted)}


def _compared(found: list[Found]) -> list[dict[str, str | float]]:
    return [
        {
            "calibration": way,
            **{title: float(np.mean([figures[way][metric] for figures in found])) for metric, title in METRICS.items()},
            **{
                f"{title} against {NONE}": "" if way == NONE else with_interval(_differences(found, way, metric))
                for metric, title in METRICS.items()
            },
        }
        for way in WAYS
    ]


def _differences(found: list[Found], way: str, metric: str) -> np.ndarray:
    return np.array([figures[way][metric] - figures[NONE][metric] for figures in found])
