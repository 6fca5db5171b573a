"""Oracle: simulated nights whose truth is known; records written by hand."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from builders import a_product

from tasks.monitoring.conclusions import conclude
from tasks.monitoring.contracts import PREVIOUS, Distance, NightRecord, Predictions, Shadow, Truth
from tasks.monitoring.past import Past
from tasks.monitoring.performance import expected_metric
from tasks.monitoring.sequences import (
    N_FIRST,
    WANTED,
    evidence_of_lead,
    evidence_of_loss,
    lower_end,
)
from tasks.publication.contracts import PublishedPart

FIRST = date(2024, 1, 1)
PART = PublishedPart(name="x", rows=40, bytes=1, sha256="x", key="x")
BEFORE = Shadow(roles=(PREVIOUS,), version="v1.0.0", commit="a", model="a", part=PART)


def nights_until_found(values):
    """The number of nights after which a loss is told; None where it never is."""
    mean, deviation = values[:N_FIRST].mean(), values[:N_FIRST].std(ddof=1)
    later = range(N_FIRST + 1, len(values) + 1)
    return next((n for n in later if evidence_of_loss(values[N_FIRST:n], mean, deviation) >= WANTED), None)


def noise(random, n, kind="normal"):
    """Nights of standard deviation 1: independent, with long tails, or each like the one before."""
    if kind == "tails":
        return random.standard_t(4, n) / np.sqrt(2)
    drawn = random.normal(size=n)
    if kind == "alike":
        for i in range(1, n):
            drawn[i] = 0.3 * drawn[i - 1] + np.sqrt(1 - 0.09) * drawn[i]
    return drawn


@pytest.mark.parametrize("kind", ["normal", "tails", "alike"])
def test_loss_is_told_seldom_by_chance_and_soon_where_there_is_one(kind):
    random = np.random.default_rng(0)
    by_chance = [nights_until_found(noise(random, 90, kind)) for _ in range(200)]
    assert sum(each is not None for each in by_chance) / 200 <= 0.05
    for at in (N_FIRST, N_FIRST + 30):  # from the first night on, and after a month of good ones
        found = [nights_until_found(noise(random, at + 60, kind) - 2 * (np.arange(at + 60) >= at)) for _ in range(60)]
        delays = [(each or 999) - at for each in found]
        assert 8 <= np.median(delays) <= 15
        assert np.quantile(delays, 0.9) <= 25


def test_lead_that_is_none_is_seldom_told_and_a_true_one_in_weeks():
    random = np.random.default_rng(1)
    by_chance = [noise(random, 90) for _ in range(150)]
    told = [any(evidence_of_lead(each[:n]) >= 20 for n in range(4, 91)) for each in by_chance]
    assert np.mean(told) <= 0.05
    for _ in range(20):
        leads = 0.01 + 0.01 * noise(random, 60)
        low = lower_end(leads)
        assert 0 < low < 0.0135
        assert evidence_of_lead(leads, low) == pytest.approx(20, rel=1e-3)


def test_series_that_is_short_or_constant_says_nothing():
    assert lower_end(np.array([0.1, 0.1, 0.1])) is None
    assert lower_end(np.zeros(50)) is None
    assert evidence_of_loss(np.empty(0), 0.8, 0.01) == 1.0


def record(day, value=None, other=None, known=2, **changes):
    """The record of a night by its number, measured `known` days later."""
    as_of = FIRST + timedelta(days=day)
    truth = None
    if value is not None:
        beside = {} if other is None else {"v1.0.0": other}
        truth = Truth(as_of=as_of + timedelta(days=known), labelled=40, metric="auc", value=value, shadows=beside)
    given = {
        "as_of": as_of,
        "scored_day": as_of,
        "run": f"run {day}",
        "rows_in": 40,
        "quarantined": 0,
        "published": 40,
        "model_version": "v2.0.0",
        "model_commit": "b",
        "predictions": Predictions(mean=None, deciles=(), shares={}),
        "truth": truth,
        "shadows": (BEFORE,),
    }
    return NightRecord(**given | changes)


def concluded(records, product=None):
    """The record of the last night, with what all of them say; the past is in memory alone."""
    past = Past(store=None, product="tiny")
    past.put(records)
    return conclude(product or a_product(), past, records[-1])


def fallen(n=40, at=20, to=0.70, **changes):
    """Nights of auc 0.8, which falls; the last two are not measured yet."""
    random = np.random.default_rng(2)
    values = [(0.8 if day < at else to) + 0.01 * random.normal() for day in range(n)]
    return [record(day, value if day < n - 2 else None, **changes) for day, value in enumerate(values)]


def test_fall_of_the_metric_asks_for_one_training_and_for_the_next_after_days():
    last = concluded(fallen())
    assert last.decay.found
    assert last.decay.nights == 38
    assert last.retrain.startswith("auc 0.70")
    assert concluded(fallen(to=0.8)).retrain is None
    assert concluded(fallen(), a_product(monitor={"retrain": False})).retrain is None
    asked = fallen()
    for days, wanted in ((13, None), (14, "auc 0.70")):
        before = [*asked]
        before[-1 - days] = replace(before[-1 - days], retrain="asked")
        assert (concluded(before).retrain or "")[:8] == (wanted or "")
    assert concluded([*asked[:-1], replace(asked[-1], retrain="asked")]).retrain == "asked", "as a second try finds it"


def test_metric_that_should_fall_is_looked_at_from_its_own_side():
    product = a_product(gates__metric="log_loss", gates__limit=0.9)
    assert concluded(fallen(), product).retrain is None, "a loss has become smaller"
    assert concluded(fallen(to=0.9), product).retrain.startswith("log_loss 0.9")


def test_nights_that_were_withdrawn_small_of_another_model_or_known_later_count_for_nothing():
    nights = fallen()
    for change in (
        {"withdrawn": True},
        {"model_version": "v1.0.0"},
        {"model_commit": "another"},
    ):
        changed = [replace(each, **change) if 20 <= day < 38 else each for day, each in enumerate(nights)]
        assert concluded(changed).decay.evidence == concluded([*nights[:20], *fallen(to=0.8)[38:]]).decay.evidence
    small = [replace(each, truth=each.truth and replace(each.truth, labelled=29)) for each in nights]
    assert concluded(small).decay is None
    later = [replace(each, truth=each.truth and replace(each.truth, as_of=date(2025, 1, 1))) for each in nights]
    assert concluded(later).decay is None


def test_night_that_is_not_the_newest_asks_for_nothing():
    past = Past(store=None, product="tiny")
    past.put(fallen())
    past.put([record(60)])
    of_before = past.known[FIRST + timedelta(days=39)]
    assert conclude(a_product(), past, of_before).decay.found
    assert conclude(a_product(), past, of_before).retrain is None


def led(lead, n=30):
    random = np.random.default_rng(3)
    return [record(day, 0.8, 0.8 + lead + 0.005 * random.normal()) for day in range(n)]


def test_rollback_is_asked_for_where_the_one_before_is_better_beyond_chance():
    last = concluded(led(0.02))
    assert last.leads["v1.0.0"].nights == 28, "two are not known yet"
    assert last.leads["v1.0.0"].low > 0
    assert last.rollback.startswith("auc of v1.0.0 better than that of v2.0.0 by 0.0")
    assert concluded(led(0.0)).rollback is None
    assert concluded(led(-0.02)).rollback is None
    assert concluded(led(0.02), a_product(monitor={"rollback": None})).rollback is None
    as_challenger = replace(BEFORE, roles=("challenger",))
    assert concluded([*led(0.02)[:-1], replace(led(0.02)[-1], shadows=(as_challenger,))]).rollback is None
    cooling = led(0.02, 60)
    cooling[40] = replace(cooling[40], rollback="done")
    assert concluded(cooling).rollback is None
    assert concluded(cooling, a_product(monitor={"rollback": {"cool_down_days": 10}})).rollback is not None


def test_inputs_that_are_far_in_three_of_five_nights_warn_and_retrain_nothing():
    def nights(far):
        columns = [{"depot": Distance(training=0.4 if each else 0.1, weekdays=None)} for each in far]
        return [record(day, columns=each) for day, each in enumerate(columns)]

    assert concluded(nights([1, 0, 1, 0, 1])).drifting == ("depot",)
    assert concluded(nights([1, 1, 1, 0, 0, 1])).drifting == ("depot",)
    assert concluded(nights([1, 0, 0, 0, 1, 1])).drifting == ()
    assert concluded(nights([1, 1, 1, 1, 1])).retrain is None


def test_estimate_is_the_metric_that_comes_true_where_probabilities_do():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(4)
    probability = random.beta(1, 4, 20_000)
    wanted = roc_auc_score(random.random(20_000) < probability, probability)
    assert expected_metric(a_product(), probability) == pytest.approx(wanted, abs=0.01)
    assert expected_metric(a_product(target__task="regression", gates__metric="r2"), probability) is None
