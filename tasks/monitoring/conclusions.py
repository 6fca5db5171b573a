"""Conclude from the nights whose labels have come: has the champion become worse, was the one before it better.

Input drift warns and concludes nothing, since it does not predict accuracy. A night that a gate stopped was never
published and has no record; one that was withdrawn counts for nothing. Nothing is concluded from what became known
later than the night that asks.
"""

from dataclasses import replace
from datetime import timedelta

import numpy as np

from tasks.monitoring.contracts import PREVIOUS, Decay, Lead, NightRecord
from tasks.monitoring.past import Past
from tasks.monitoring.sequences import N_FIRST, SMALLEST_DEVIATION, WANTED, evidence_of_loss, lower_end
from tasks.params import LOWER_IS_BETTER, Product

MIN_LABELLED = 30
"""Labelled rows of a night that counts."""
N_RECENT = 7
FAR, N_FAR, N_LOOKED_AT = 0.25, 3, 5
"""A column drifts where it was farther than this from the training rows in three of the last five nights."""


def conclude(product: Product, past: Past, record: NightRecord) -> NightRecord:
    """Return the record of a night with all that the nights up to it say, and put it into the past.

    A training or a rollback is asked for by the newest night only, and once within the days that are declared.
    """
    nights = [each for each in past.known.values() if each.as_of <= record.as_of]
    counted = [each for each in nights if _counts(each, record)]
    concluded = replace(
        record,
        drifting=drifting([each for each in nights if each.model_version == record.model_version]),
        decay=decay_of(product, counted),
        leads=leads_of(product, counted, record),
    )
    if record.as_of == max(past.known, default=record.as_of):
        concluded = replace(
            concluded,
            retrain=record.retrain or _asks_for_training(product, nights, concluded),
            rollback=record.rollback or _asks_for_rollback(product, nights, concluded),
        )
    past.put([concluded])
    return concluded


def _counts(night: NightRecord, record: NightRecord) -> bool:
    """Return whether a night says something of the record's model: its labels were known, and were no few."""
    truth = night.truth
    is_of_model = (night.model_version, night.model_commit) == (record.model_version, record.model_commit)
    is_measured = truth is not None and truth.value is not None and truth.labelled >= MIN_LABELLED
    return is_of_model and not night.withdrawn and is_measured and truth is not None and truth.as_of <= record.as_of


def drifting(nights: list[NightRecord]) -> tuple[str, ...]:
    """Return the columns that were far from the training rows in three of the last five nights of a model."""
    last = nights[-N_LOOKED_AT:]
    names = last[-1].columns if last else {}
    return tuple(
        name
        for name in names
        if sum((each.columns[name].training or 0) > FAR for each in last if name in each.columns) >= N_FAR
    )


def decay_of(product: Product, nights: list[NightRecord]) -> Decay | None:
    """Return how measured nights of one model, in order, stand to the first of them; None while there are too few."""
    values = np.array([each.truth.value for each in nights if each.truth and each.truth.value is not None], float)
    if len(values) <= N_FIRST:
        return None
    sign = -1 if product.gates.metric in LOWER_IS_BETTER else 1
    mean, deviation = float(values[:N_FIRST].mean()), float(values[:N_FIRST].std(ddof=1))
    deviation = max(deviation, SMALLEST_DEVIATION * abs(mean))
    return Decay(
        nights=len(values),
        first_mean=round(mean, 6),
        first_deviation=round(deviation, 6),
        recent_mean=round(float(values[-N_RECENT:].mean()), 6),
        evidence=evidence_of_loss(sign * values[N_FIRST:], sign * mean, deviation),
        wanted=WANTED,
    )


def leads_of(product: Product, nights: list[NightRecord], record: NightRecord) -> dict[str, Lead]:
    """Return how the models beside the champion stand to it, over the nights that each of them scored."""
    sign = -1 if product.gates.metric in LOWER_IS_BETTER else 1
    found = {}
    for name in (each.name for each in record.shadows):
        pairs = [(each.truth.shadows.get(name), each.truth.value) for each in nights if each.truth]
        lead = np.array([sign * (other - own) for other, own in pairs if other is not None and own is not None], float)
        if len(lead):
            low = lower_end(lead)
            mean = round(float(lead.mean()), 6)
            found[name] = Lead(nights=len(lead), mean=mean, low=None if low is None else round(low, 6))
    return found


def _asks_for_training(product: Product, nights: list[NightRecord], record: NightRecord) -> str | None:
    decay, since = record.decay, record.as_of - timedelta(days=product.monitor.retrain_days)
    if not (product.monitor.retrain and decay and decay.found):
        return None
    if any(each.retrain for each in nights if since < each.as_of < record.as_of):
        return None
    return (
        f"{product.gates.metric} {decay.recent_mean:.4f} in the last {N_RECENT} nights, {decay.first_mean:.4f} in the "
        f"first {N_FIRST} of {record.model_version or 'the model'} (evidence {decay.evidence:.0f}, and "
        f"{decay.wanted:.0f} is enough)"
    )


def _asks_for_rollback(product: Product, nights: list[NightRecord], record: NightRecord) -> str | None:
    rollback = product.monitor.rollback
    previous = next((each for each in record.shadows if PREVIOUS in each.roles and each.version), None)
    lead = record.leads.get(previous.name) if previous else None
    if rollback is None or previous is None or lead is None or lead.low is None or lead.low <= 0:
        return None
    since = record.as_of - timedelta(days=rollback.cool_down_days)
    if any(each.rollback for each in nights if since < each.as_of < record.as_of):
        return None
    return (
        f"{product.gates.metric} of {previous.version} better than that of {record.model_version} by {lead.mean:.4f} "
        f"in {lead.nights} nights, and by more than {lead.low:.4f} by a 95% confidence sequence"
    )
