"""Oracle: the jackknife worked by hand on a mean, scikit-learn's AUC, and how often an interval holds what is true."""

import numpy as np
import pytest
from scipy import stats

from model.evaluation.paired import blocks_of_days, blocks_of_groups, paired_difference

N_DAYS, N_ROWS = 7, 60


def test_interval_of_a_mean_is_students():
    values = np.array([0.4, -0.1, 0.7, 0.2, 0.5])
    found = paired_difference(lambda kept: values[kept].mean(), np.arange(5))
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert found.n_blocks == 5


def test_interval_holds_the_truth_where_days_have_much_in_common():
    random, n, held, held_by_rows = np.random.default_rng(0), 400, 0, 0
    day = np.repeat(np.arange(N_DAYS), N_ROWS)
    for _ in range(n):
        lead = 0.3 + random.normal(size=N_DAYS)[day] * 0.5 + random.normal(size=len(day))
        found = paired_difference(lambda kept, lead=lead: lead[kept].mean(), day)
        held += found.low <= 0.3 <= found.high
        low, high = stats.t.interval(0.95, len(lead) - 1, lead.mean(), stats.sem(lead))
        held_by_rows += low <= 0.3 <= high
    assert 0.92 <= held / n <= 0.98
    assert held_by_rows / n < 0.6  # rows taken for observations would be sure of what they do not know


def test_blocks_of_unequal_size_still_hold_the_truth():
    random, n, held = np.random.default_rng(1), 400, 0
    for _ in range(n):
        day = np.repeat(np.arange(N_DAYS), random.integers(20, 120, N_DAYS))
        lead = random.normal(size=N_DAYS)[day] * 0.5 + random.normal(size=len(day))
        found = paired_difference(lambda kept, lead=lead: lead[kept].mean(), day)
        held += found.low <= 0 <= found.high
    assert held / n >= 0.9


def test_what_a_choice_of_rows_does_not_define_has_no_difference():
    assert paired_difference(lambda kept: 1.0, np.zeros(4, int)) is None
    assert paired_difference(lambda kept: 1.0 if kept[0] else None, np.arange(4)) is None
    assert paired_difference(lambda kept: None, np.arange(4)) is None
    assert paired_difference(lambda kept: 1.0, np.zeros(0, int)) is None


def test_many_days_share_blocks_of_consecutive_days():
    days = np.datetime64("2020-01-01") + np.arange(365)
    block = blocks_of_days(days)
    assert len(np.unique(block)) == 100
    assert (np.diff(block) >= 0).all()
    assert set(np.bincount(block)) == {3, 4}


def test_rows_of_a_group_share_a_block():
    groups = np.random.default_rng(0).integers(0, 2**63, 500).astype(np.uint64).repeat(3)
    block = blocks_of_groups(groups)
    assert len(np.unique(block)) == 20
    assert (block.reshape(-1, 3) == block.reshape(-1, 3)[:, :1]).all()
