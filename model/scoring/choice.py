"""Choose the engine of an exported network: measured on validation rows, decided by a clear margin.

An engine that rounds may score only if the metric that decides about the product falls by no more than
MAX_LOSS, on the exported file, by the engine itself. Of those that may, a faster one is taken only where it is
MIN_GAIN times as fast as the simpler one before it, so that the noise of a clock does not decide.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.features.encoded import Encoded
from model.features.fitting import Table
from model.heads.item_lists import difference
from model.scoring.engines import ONNXRUNTIME, OPENVINO, SIMPLEST, Engine, has_cuda, missing_requirement
from model.scoring.scorer import Scorer

MAX_LOSS = 0.002
"""Largest fall of a metric such as AUC or F1; of an error or a loss, the largest rise as a share of it."""
MIN_GAIN = 1.15
TIMED_BATCHES, TIMED_SECONDS = 8, 4.0
"""What a round has each engine score: so many batches, or as many as the first engine scores in so many seconds."""
N_ROUNDS = 3
"""Of which the first also loads what all need; the fastest counts."""
NOISE = 1.5
"""So many times as fast as in one round an engine might be in the next."""

Metric = Callable[[np.ndarray], float | None]
"""Scores of rows to the metric that decides about the product; None where the rows do not define it."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Speed and precision of one engine."""

    engine: Engine
    rows_per_cpu_second: float
    """Validation rows that one core, or the GPU, scores in a second."""
    metric: float | None
    """The metric that decides about the product, on the validation rows; None of an engine that is too slow."""
    max_difference: float | None
    """Largest difference of a validation row's score from ONNX Runtime's in fp32; None where one is no number, and of
    an engine that is too slow."""


def candidates() -> list[Engine]:
    """Return the engines that this machine can run, the simplest first."""
    if has_cuda():
        return [SIMPLEST, Engine(name=ONNXRUNTIME, precision="fp16")]
    bf16 = Engine(name=OPENVINO, precision="bf16")
    fastest_float = Engine(name=OPENVINO, precision="fp32") if missing_requirement(bf16) else bf16
    int8 = [Engine(name=name, precision="int8") for name in (ONNXRUNTIME, OPENVINO)]
    return [SIMPLEST, *(engine for engine in (int8[0], fastest_float, int8[1]) if not missing_requirement(engine))]


def measure(
    folder: Path, engines: Sequence[Engine], table: Table, metric: Metric, min_gain: float = MIN_GAIN
) -> list[Measurement]:
    """Measure speed and metric of each engine on the rows of `table`; the others are compared with the first.

    The engines take turns, and a round counts in processor time, so that a busy machine judges as an idle one does;
    where a GPU computes, in time. One that is too slow for `min_gain` does not score the rows.
    """
    scorers = [Scorer(folder, engine=engine) for engine in engines]
    encoded, clock = scorers[0].features.encode(table), time.perf_counter if has_cuda() else time.process_time

    def seconds_of(number: int, rows: Encoded) -> float:
        started = clock()
        scorers[number].score_encoded(rows)
        return clock() - started

    def repeated(n_batches: int) -> Encoded:
        n_rows = max(1, round(n_batches * scorers[0].batch_tokens / encoded.n_tokens.mean()))
        return scorers[0].features.encode({name: np.resize(column, n_rows) for name, column in table.items()})

    one = repeated(1)
    a_batch = min(seconds_of(0, one) for _ in range(2))
    timed = repeated(int(np.clip(TIMED_SECONDS / max(a_batch, 1e-9), 1, TIMED_BATCHES)))
    seconds = np.full((N_ROUNDS, len(scorers)), np.inf)
    for turn in range(N_ROUNDS):
        # In the first round each still loads what it needs.
        for number in range(len(scorers)) if turn < 2 else in_play(seconds.min(0), min_gain, NOISE):
            seconds[turn, number] = seconds_of(number, timed)
    fastest = seconds.min(0)
    scores = {number: scorers[number].score_encoded(encoded) for number in in_play(fastest, min_gain)}
    compared = {number: scorers[0].target.head.compared_scores(found) for number, found in scores.items()}
    return [
        Measurement(
            engine=engine,
            rows_per_cpu_second=len(timed) / fastest[number],
            metric=metric(scores[number]) if number in scores else None,
            max_difference=_difference(compared[number], compared[0]) if number in scores else None,
        )
        for number, engine in enumerate(engines)
    ]


def in_play(seconds: np.ndarray, min_gain: float, noise: float = 1.0) -> list[int]:
    """Return the engines that are `min_gain` times as fast as the first one, or may be within `noise`, and this one.

    >>> in_play(np.array([1.0, 3.0, 1.2]), 1.15, noise=1.5), in_play(np.array([1.0, 1.2, 0.8]), 1.15)
    ([0, 2], [0, 2])
    >>> in_play(np.array([1.0, 3.0]), min_gain=0.0)
    [0, 1]

    Shapes: [engines].
    """
    return [number for number, each in enumerate(seconds) if not number or min_gain * each <= noise * seconds[0]]


def choose(
    measurements: Sequence[Measurement],
    held_out: Callable[[Engine], float | None],
    lower_is_better: bool,
    min_gain: float = MIN_GAIN,
) -> Engine:
    """Return the engine to score with; `measurements` go from the simplest engine to the least simple one.

    Chosen on the validation rows; if its metric on held-out rows then falls too far, it is out.
    """
    simplest = measurements[0]
    best = _fastest(measurements, lower_is_better, min_gain)
    if best is simplest or within_tolerance(held_out(simplest.engine), held_out(best.engine), lower_is_better):
        return best.engine
    remaining = [measured for measured in measurements if measured is not best]
    return choose(remaining, held_out, lower_is_better, min_gain)


def within_tolerance(exact: float | None, rounded: float | None, lower_is_better: bool) -> bool:
    """Return whether the metric of an engine that rounds is close to the exact one; an unknown one never is."""
    if exact is None or rounded is None:
        return False
    return rounded <= exact * (1 + MAX_LOSS) if lower_is_better else rounded >= exact - MAX_LOSS


def _difference(scores: np.ndarray, exact: np.ndarray) -> float | None:
    largest = difference(scores, exact)
    return largest if np.isfinite(largest) else None


def _fastest(measurements: Sequence[Measurement], lower_is_better: bool, min_gain: float) -> Measurement:
    simplest, *others = measurements
    best = simplest
    for other in others:
        fast = other.rows_per_cpu_second >= min_gain * best.rows_per_cpu_second
        if fast and within_tolerance(simplest.metric, other.metric, lower_is_better):
            best = other
    return best
