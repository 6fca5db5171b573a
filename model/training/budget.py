"""How many steps of a training fit into a budget of seconds, by what a few take that move no weight."""

import math
import time
from collections.abc import Callable

import numpy as np

TIMED_STEPS = 4
"""Steps at most that are timed; a hundredth of the budget is enough."""
LONG_STEP = 1 / 20
"""Share of the budget that makes a step long: the first then counts too, and is the only one."""


def steps_within(
    seconds: float,
    try_step: Callable[[int, np.ndarray], None],
    steps: list[np.ndarray],
    n_tokens: np.ndarray,
    validate: Callable[[], float] | None,
    *,
    compiles: bool,
) -> int:
    """Return the steps that fit into what the timing itself leaves of `seconds`, at least one.

    `steps` are the row numbers of an epoch's steps, `try_step` takes one of them by its number and rows; `validate`
    follows each epoch. With `compiles` the first step may take minutes that no other one takes. Shapes: n_tokens [n],
    the tokens of every row.
    """
    began = time.perf_counter()
    spent = n_read = 0.0
    for number, rows in enumerate(steps[:TIMED_STEPS]):
        started = time.perf_counter()
        try_step(number, rows)
        took = time.perf_counter() - started
        is_long = took > seconds * LONG_STEP and not compiles
        if number or is_long or len(steps) == 1:  # the first one also loads what all need
            spent += took
            n_read += float(n_tokens[rows].sum())
        if spent > seconds / 100:
            break
    step_seconds = max(1e-9, spent * float(n_tokens.sum()) / max(1.0, n_read) / len(steps))
    validation_seconds = 0.0
    if validate is not None:
        started = time.perf_counter()
        validate()
        validation_seconds = time.perf_counter() - started
    left = seconds - (time.perf_counter() - began)
    n_steps = left / (step_seconds + validation_seconds / len(steps))
    if n_steps < len(steps):  # the one validation at the end is not shorter for it
        n_steps = (left - validation_seconds) / step_seconds
    return max(1, math.floor(n_steps))
