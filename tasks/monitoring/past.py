"""Add a night to a product's past, and measure the nights whose labels have come."""

from dataclasses import replace
from datetime import date, timedelta

from tasks.monitoring.contracts import PAST, NightRecord, Truth, Year
from tasks.monitoring.performance import change_of, measure_night, sum_up
from tasks.params import Product
from tasks.publication.manifests import NightPlace, current_manifest, decode_record, encode_checked, read_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.rows.partitions import Partitions
from tasks.rows.splitting import known_labels
from tasks.runtime.paths import Paths

WEEKS_COMPARED = 4
LOOK_AGAIN_DAYS = (1, 3, 7, 14)
"""A night is measured when its labels are due, then after so many days, and last when no more are taken."""


def add_night(product: Product, as_of: date) -> NightRecord | None:
    """Record the published night of a date, unless it is recorded; return it, or None where none is published."""
    place = NightPlace(store=Store(product.publish.url), product=product.name, as_of=as_of)
    manifest = current_manifest(place)
    if manifest is None or manifest.withdrawn:
        return None
    known = nights(place.store, product.name, as_of - timedelta(weeks=WEEKS_COMPARED), as_of)
    if as_of in known and known[as_of].run == manifest.run:
        return known[as_of]
    predictions = sum_up(product, place, manifest)
    same_weekday = [known[day].predictions for day in known if day != as_of and (as_of - day).days % 7 == 0]
    record = NightRecord(
        as_of=as_of,
        scored_day=manifest.scored_day,
        run=manifest.run,
        rows_in=manifest.rows.rows_in,
        quarantined=manifest.rows.quarantined,
        published=manifest.rows.published,
        model_version=manifest.model.version,
        predictions=predictions,
        change=change_of(predictions, same_weekday),
    )
    keep(place.store, product.name, [record])
    return record


def measure_past(product: Product, as_of: date, paths: Paths) -> list[NightRecord]:
    """Measure the nights whose labels are due at `as_of`, by the valid labels below `paths`; return those measured."""
    store, target = Store(product.publish.url), product.target
    waited = target.delay_days + target.late_days + product.predict.horizon_days
    known = nights(store, product.name, as_of - timedelta(days=waited + 1), as_of)
    due = [each for each in known.values() if is_due(each, product, as_of)]
    if not due:
        return []
    files = Partitions(paths.valid / "labels")
    labels = known_labels(files, files.days(as_of, min(each.scored_day for each in due)), product)
    measured = []
    for record in due:
        place = NightPlace(store=store, product=product.name, as_of=record.as_of)
        manifest = current_manifest(place)
        if manifest and manifest.run == record.run and not manifest.withdrawn:
            truth = measure_night(product, place, manifest, labels, as_of)
            if truth:
                measured.append(replace(record, truth=truth))
    keep(store, product.name, measured)
    return measured


def is_due(record: NightRecord, product: Product, as_of: date) -> bool:
    """Return whether a night is to be measured at a date: its labels have come, or others since it was measured."""
    first = record.scored_day + timedelta(days=product.target.delay_days)
    if record.truth is None:
        return as_of >= first
    looks = [first + timedelta(days=days) for days in (*LOOK_AGAIN_DAYS, product.target.late_days)]
    return any(record.truth.as_of < look <= as_of for look in looks)


def nights(store: Store, product: str, first: date, last: date) -> dict[date, NightRecord]:
    """Return the records of the nights from one date to another, in order.

    Raises UserError where an object is damaged, TransientError where the store does not answer.
    """
    years = (read_checked(store, key_of(product, year), Year)[0] for year in range(first.year, last.year + 1))
    known = (record for year in years if year for record in year.nights.values())
    return {each.as_of: each for each in sorted(known, key=lambda each: each.as_of) if first <= each.as_of <= last}


def keep(store: Store, product: str, records: list[NightRecord]) -> None:
    """Write records into the objects of their years; what another run knows later about a night's labels stays."""
    for year in sorted({each.as_of.year for each in records}):
        of_year = [each for each in records if each.as_of.year == year]

        def add(current: StoredObject | None, added: list[NightRecord] = of_year) -> bytes | None:
            known = decode_record(current, Year) if current else Year()
            merged = dict(known.nights)
            for record in added:
                before = merged.get(record.as_of.isoformat())
                merged[record.as_of.isoformat()] = replace(record, truth=newer_truth(record, before))
            if merged == known.nights:
                return None
            return encode_checked(Year(nights=dict(sorted(merged.items()))).to_json())

        store.update(key_of(product, year), add)


def newer_truth(record: NightRecord, before: NightRecord | None) -> Truth | None:
    """Return the measurement of a night that knows later labels; one of another run's predictions says nothing."""
    kept = before.truth if before and before.run == record.run else None
    if kept is None or (record.truth and record.truth.as_of >= kept.as_of):
        return record.truth
    return kept


def key_of(product: str, year: int) -> str:
    """Return the key of the object with a year's nights."""
    return f"{product}/{PAST}/{year}.json"
