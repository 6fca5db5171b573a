"""Compare policies of promotion on the nights of a replay, with intervals over nights.

Four policies: the champion as it was published, the first champion never retrained, always the newest model, and the
baseline fitted to the newest training's rows. Nights are the observations: the rows of one have much in common.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.evaluation.paired import Difference, paired_difference
from tasks.commands.simulation.contracts import Outcome, Replay

CHAMPION, FIRST, NEWEST, BASELINE = "published champion", "never retrained", "always the newest", "baseline"
Series = Mapping[str, float]
"""The metric by the as_of of the night."""


def series_of(replay: Replay) -> dict[str, Series]:
    """Return the metric of each policy on the nights that were published and measured."""
    found: dict[str, dict[str, float]] = {name: {} for name in (CHAMPION, FIRST, NEWEST, BASELINE)}
    first = newest = None
    for each in replay.outcomes:
        if each.kind == "retrain":
            newest = each.as_of.isoformat() if each.commit else newest
            first = first or newest
            continue
        night = each.as_of.isoformat()
        if first is None or newest is None or night not in replay.published:
            continue
        values = (
            replay.published[night],
            replay.models[first].get(night),
            replay.models[newest].get(night),
            replay.baselines[newest].get(night),
        )
        for name, value in zip(found, values, strict=True):
            if value is not None:
                found[name][night] = value
    return dict(found)


def lead(one: Series, other: Series, *, lower_is_better: bool = False) -> Difference | None:
    """Return the mean by which one series is better than another on their common nights; None of fewer than two.

    >>> print(lead({"a": 0.8, "b": 0.7, "c": 0.9}, {"a": 0.7, "b": 0.7, "c": 0.7}))
    +0.1000 (95% interval -0.1484 to +0.3484, 3 blocks of rows)
    """
    nights = sorted(one.keys() & other.keys())
    leads = np.array([one[night] - other[night] for night in nights]) * (-1 if lower_is_better else 1)
    return paired_difference(lambda kept: float(leads[kept].mean()), np.arange(len(leads)))


def mean_of(series: Series) -> Difference | None:
    """Return the mean of a series with its interval over nights; None of fewer than two."""
    return lead(series, dict.fromkeys(series, 0.0))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A model at the gates, and how it did on the nights after them beside the champion that it met there."""

    outcome: Outcome
    """What the gates came to."""
    lead: Difference | None
    """How much better it was on all nights that came later; None of fewer than two."""


def judged(replay: Replay) -> list[Judged]:
    """Return each retrain after the first, with the lead over the champion of its time on all later nights."""
    found, champion, trained = [], None, {}
    for place, each in enumerate(replay.outcomes):
        if each.kind == "retrain" and each.commit:
            name = each.as_of.isoformat()
            if champion is not None:
                later = [night.as_of.isoformat() for night in replay.outcomes[place:] if night.kind == "night"]
                own, other = (
                    {night: replay.models[model][night] for night in later if night in replay.models[model]}
                    for model in (name, champion)
                )
                found.append(Judged(outcome=each, lead=lead(own, other, lower_is_better=replay.lower_is_better)))
            if each.state == "promoted" and each.champion:
                trained[each.champion] = name
        champion = trained.get(each.champion or "", champion)
    return found


def spread_between_models(found: list[Judged]) -> float | None:
    """Return the standard deviation of true leads of challengers: that of measured ones without what noise adds.

    None of fewer than three.
    """
    leads = [each.lead for each in found if each.lead]
    if len(leads) < 3:
        return None
    from scipy import stats

    errors = [(one.high - one.value) / float(stats.t.ppf(0.975, one.n_blocks - 1)) for one in leads]
    variance = np.var([one.value for one in leads], ddof=1) - np.mean(np.square(errors))
    return float(np.sqrt(np.maximum(0.0, variance)))


def spread(series: Series) -> float:
    """Return the standard deviation from night to night."""
    return float(np.std(list(series.values()), ddof=1)) if len(series) > 1 else float("nan")


def rollbacks(replay: Replay) -> list[Outcome]:
    """Return the nights after which another model was the champion than before."""
    pairs = zip(replay.outcomes, replay.outcomes[1:], strict=False)
    return [now for before, now in pairs if now.kind == "night" and now.champion != before.champion]


def decays(replay: Replay) -> list[Outcome]:
    """Return the nights that asked for a training out of turn."""
    return [each for each in replay.of_kind("night") if each.decay]


def false_alarms(replay: Replay) -> list[Outcome]:
    """Return the nights that were stopped on days on which nothing was wrong with the source."""
    fault = replay.plan.fault
    alarms = [each for each in replay.of_kind("night") if each.state == "stopped"]
    return [each for each in alarms if fault is None or not fault.first <= each.as_of <= fault.last]
