"""The steps of a training: which rows each reads, what it draws, and how many fit into a budget of seconds."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from model.compute import distributed
from model.features.batches import batches
from model.features.encoded import Encoded
from model.settings import OptimisationSettings

MIN_STEPS_PER_EPOCH = 32
SMALLEST_BATCH_ROWS = 16
"""Rows of a step, where that is little work: a step of fewer costs as much, and then an epoch has fewer steps."""
TIMED_STEPS = 4
"""Steps at most that are timed; a hundredth of the budget is enough."""
LONG_STEP = 1 / 20
"""Share of the budget that makes a step long: the first then counts too, and is the only one."""


def epoch_batches(encoded: Encoded, settings: OptimisationSettings, epoch: int, little: int) -> list[np.ndarray]:
    """Return the row numbers of each step of an epoch; a step of up to `little` is little work."""
    # Few rows still make several steps an epoch; one huge batch would hardly move the weights.
    n_tokens = int(encoded.n_tokens.sum())
    few = math.ceil(n_tokens / MIN_STEPS_PER_EPOCH)
    if settings.has_smallest_batch:
        few = max(few, min(little, math.ceil(SMALLEST_BATCH_ROWS * n_tokens / len(encoded))))
    return batches(encoded, min(settings.batch_tokens, few), settings.seed + epoch)


def seed_step(seed: int, step: int) -> None:
    """Fix what torch draws in a step: on the CPU the same in every process, on GPUs its own in each."""
    number = (seed * 1_000_003 + step) * 1_009
    # Where there is no GPU, torch.manual_seed took a fifth of a small network's step: it writes down its caller.
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(number % 2**63)
    if distributed.n_ranks() > 1:
        torch.cuda.manual_seed((number + distributed.rank()) % 2**63)


def steps_within(
    seconds: float,
    try_step: Callable[[int, np.ndarray], None],
    steps: list[np.ndarray],
    n_tokens: np.ndarray,
    validate: Callable[[], float] | None,
    *,
    compiles: bool,
) -> int:
    """Return the steps that fit into what timing a few, which move no weight, leaves of `seconds`; at least one.

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
