"""Oracle: steps that sleep, and so take as long as they say at least; a slow machine only makes them fewer."""

import time

import numpy as np
import pytest

from model.training.steps import TIMED_STEPS, steps_within

N_ROWS = 1000
N_TOKENS = np.ones(N_ROWS)
STEPS = list(np.arange(N_ROWS).reshape(-1, 1))
STEP, VALIDATION = 0.01, 0.2
"""Seconds."""


def validate():
    time.sleep(VALIDATION)
    return 0.0


def planned(seconds, compiles=False, validate=None):
    """The steps that are planned, and the numbers of those that were tried for it."""
    tried = []

    def try_step(number, rows):
        tried.append(number)
        time.sleep(STEP * len(rows))

    return steps_within(seconds, try_step, STEPS, N_TOKENS, validate, compiles=compiles), tried


def test_planned_steps_leave_room_for_their_timing_and_one_validation():
    n_steps, tried = planned(1.0, validate=validate)
    assert 1 <= n_steps <= (1.0 - 2 * VALIDATION - len(tried) * STEP) / STEP


def test_validations_of_several_epochs_share_the_budget():
    n_steps, tried = planned(60.0, validate=validate)
    assert len(tried) <= TIMED_STEPS
    assert n_steps * STEP + max(1, n_steps / N_ROWS) * VALIDATION < 60.0


@pytest.mark.parametrize(("compiles", "tried"), [(False, [0]), (True, [0, 1])], ids=["cpu", "gpu"])
def test_first_step_counts_where_it_is_long_and_nothing_is_compiled(compiles, tried):
    assert planned(STEP * 10, compiles)[1] == tried


def test_one_step_is_taken_where_none_fits():
    assert planned(1e-6)[0] == 1
