"""Look at a trained model's held-out rows through its exported file: calibration, and what moves the predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from model.features.encoded import Encoded
from model.features.fitting import Table
from model.heads import head_of
from model.heads.generate import BITS_PER_BYTE
from model.heads.prediction_rule import MeasuredThresholds
from model.target import read_description
from tasks.params import LOWER_IS_BETTER, Product
from tasks.rows import model_inputs
from tasks.runtime.paths import Paths
from tasks.training.gate_metric import gate_metric

if TYPE_CHECKING:
    from model.evaluation.importance import Importance
    from model.scoring.scorer import Scorer

MAX_ROWS = 20_000
"""Held-out rows of which the calibration is shown."""
MAX_PERMUTED_ROWS, MIN_PERMUTED_ROWS = 2_000, 50
"""Held-out rows whose cells change places."""
N_REPEATS = 5
BUDGET = 4e11
"""Multiplications that all permutations may take: some seconds of two cores."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How often what was given a probability came true, by bins of equally many rows."""

    predicted: tuple[float, ...]
    """Mean probability of each bin."""
    true: tuple[float, ...]
    """Share of it that came true."""
    error: float
    """The expected calibration error."""


@dataclass(frozen=True, kw_only=True)
class HeldOutLook:
    """What the exported file says of held-out rows."""

    rows: int
    """Rows that were looked at."""
    curve: Curve | None
    """Calibration; None without probabilities, or rows."""
    importances: "tuple[Importance, ...]"
    """By column, what is worth most first."""
    permuted_rows: int
    """Rows whose cells have changed places."""


def look_at_held_out(product: Product, paths: Paths) -> HeldOutLook:
    """Score held-out rows with the exported model below `paths`; the same rows every time."""
    from model.scoring.scorer import Scorer

    scorer = Scorer(paths.onnx)
    rows = model_inputs.split_part(paths.splits, "test", product).sample(MAX_ROWS)
    classes = model_inputs.all_classes(rows.labels, product, scorer.classes)
    n_permuted = n_permuted_rows(scorer, rows, read_description(paths.onnx)["settings"])
    if head_of(product.target.task).writes_texts:
        # Labels are foreseen again and again; by a language model that would take longer than its training.
        n_permuted *= product.gates.metric == BITS_PER_BYTE and not product.model.is_language_model
        curve = None
    else:
        scores = model_inputs.scores_of_classes(model_inputs.scores(scorer, rows), scorer.classes, classes)
        curve = _curve(product, model_inputs.targets(rows.labels, product, classes), scores)
    few = rows.sample(n_permuted)
    found = _importances(product, paths, scorer, few, classes) if len(few) else []
    worth = {each.column: each.movement if each.loss is None else each.loss for each in found}
    return HeldOutLook(
        rows=len(rows),
        curve=curve,
        importances=tuple(sorted(found, key=lambda each: (-worth[each.column], each.column))),
        permuted_rows=len(few),
    )


def _curve(product: Product, y: np.ndarray, scores: np.ndarray) -> Curve | None:
    from model.heads.measures import calibration_error, reliability

    head = head_of(product.target.task)
    if not head.has_probabilities or not len(y):
        return None
    events, probabilities = head.reliability(y, scores)
    predicted, true, _ = reliability(events, probabilities)
    error = calibration_error(events, probabilities)
    return Curve(predicted=tuple(predicted.tolist()), true=tuple(true.tolist()), error=error)


def n_permuted_rows(scorer: "Scorer", rows: model_inputs.SplitPart, settings: Mapping[str, int]) -> int:
    """Return how many rows can be scored again and again within the budget; the same number on every machine."""
    encoded = scorer.features.encode(rows.sample(MIN_PERMUTED_ROWS).read_all())
    each = multiplications_of_a_row(settings, encoded)
    return int(np.clip(BUDGET / (each * N_REPEATS * len(rows.product.inputs)), MIN_PERMUTED_ROWS, MAX_PERMUTED_ROWS))


def multiplications_of_a_row(settings: Mapping[str, int], encoded: Encoded) -> float:
    """Return about how many multiplications the encoder makes for a row, in the mean of some rows."""
    width, inner = settings["d_model"], settings["d_feedforward"]
    tokens = float(encoded.n_tokens.mean()) if len(encoded) else 1.0
    return tokens * settings["n_layers"] * (4 * width * width + 2 * width * inner)


def _importances(
    product: Product, paths: Paths, scorer: "Scorer", rows: model_inputs.SplitPart, classes: tuple[str, ...]
) -> "list[Importance]":
    from tqdm import tqdm

    from model.evaluation.importance import permutation_importance

    if head_of(product.target.task).writes_texts:
        score, measure = _foreseen(scorer, rows)
    else:
        score, measure = _score(product, scorer, rows), _measure(product, paths, scorer, rows, classes)
    days = rows.times.astype("datetime64[D]")
    found = permutation_importance(rows.read_all(), days, score, measure, N_REPEATS)
    return list(tqdm(found, desc="what moves the predictions", total=len(product.inputs), unit="column"))


def _score(product: Product, scorer: "Scorer", rows: model_inputs.SplitPart) -> Callable[[Table], np.ndarray]:
    """Return what gives the scores of a table; an answer that stands in a text is one of the text that its row has."""
    if not head_of(product.target.task).answers_spans:
        return scorer.score
    y = model_inputs.targets(rows.labels, product, ())
    return lambda table: model_inputs.metric_scores(product, y, table, scorer.score(table))


def _measure(
    product: Product, paths: Paths, scorer: "Scorer", rows: model_inputs.SplitPart, classes: tuple[str, ...]
) -> Callable[[np.ndarray], float | None]:
    """Return what makes the gates' metric of scores; of it more is better."""
    y, sign = model_inputs.targets(rows.labels, product, classes), -1 if product.gates.metric in LOWER_IS_BETTER else 1
    rule = model_inputs.prediction_rule(product, MeasuredThresholds.load(paths.onnx), scorer.classes, classes)
    value_of = partial(gate_metric, product, y, rule=rule)

    def measure(scores: np.ndarray) -> float | None:
        value = value_of(model_inputs.scores_of_classes(scores, scorer.classes, classes))
        return None if value is None else sign * value

    return measure


def _foreseen(
    scorer: "Scorer", rows: model_inputs.SplitPart
) -> tuple[Callable[[Table], np.ndarray], Callable[[np.ndarray], float | None]]:
    """Return what says how many bits each label has after the cells of a table, and less of them by all bytes."""
    labels = model_inputs.label_texts(scorer.writer, rows)
    n_bytes = int(labels.n_bytes.sum())

    def score(table: Table) -> np.ndarray:
        return scorer.writer.nats(scorer.features.encode(table), labels) / np.log(2)

    return score, lambda bits: -float(bits.sum()) / n_bytes if n_bytes else None
