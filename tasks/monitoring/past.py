"""Read and keep the records of a product's nights: the object of a year is read once, and written once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from functools import partial

from tasks.monitoring.contracts import PAST, NightRecord, Truth, Year
from tasks.publication.manifests import NightPlace, decode_record, encode_checked, is_withdrawn, read_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runtime import faults


@dataclass
class Past:
    """The records of the nights of some years, as they were read, and what is new of them."""

    store: Store
    """The store below the product's `publish.url`."""
    product: str
    """The product's name."""
    known: dict[date, NightRecord] = field(default_factory=dict)
    """Every night of these years, in order."""
    read: dict[int, StoredObject | None] = field(default_factory=dict)
    """The objects, by year; None where there is none yet."""
    before: dict[date, NightRecord] = field(default_factory=dict)
    """The nights as they were read."""
    new: dict[date, NightRecord] = field(default_factory=dict)
    """Records to be kept."""

    @classmethod
    def of(cls, store: Store, product: str, first: date, last: date) -> "Past":
        """Read the years from one date to another.

        Raises UserError where an object is damaged, TransientError where the store does not answer.
        """
        past = cls(store=store, product=product)
        for number in range(first.year, last.year + 1):
            year, past.read[number] = read_checked(store, key_of(product, number), Year)
            past.known |= {each.as_of: each for each in (year.nights.values() if year else ())}
        past.known = dict(sorted(past.known.items()))
        past.before = dict(past.known)
        return past

    def nights(self, first: date, last: date) -> dict[date, NightRecord]:
        """Return the records of the nights from one date to another, in order."""
        return {day: record for day, record in self.known.items() if first <= day <= last}

    def put(self, records: Iterable[NightRecord]) -> None:
        """Add records, or put them in place of those of the same nights."""
        for record in records:
            if self.known.get(record.as_of) != record:
                self.new[record.as_of] = self.known[record.as_of] = record
        self.known = dict(sorted(self.known.items()))

    def keep(self) -> None:
        """Write the new records into the objects of their years; what another run has learnt meanwhile stays."""
        for year in sorted({day.year for day in self.new}):
            of_year = [record for day, record in self.new.items() if day.year == year]
            body = _with(self.read.get(year), of_year, self.before)
            faults.failpoint("monitor: the past is about to be kept")
            if body is not None and not self.store.replace(key_of(self.product, year), body, self.read.get(year)):
                merge = partial(_with, added=of_year, before=self.before)
                self.store.update(key_of(self.product, year), merge)
        self.new = {}


def nights(store: Store, product: str, first: date, last: date) -> dict[date, NightRecord]:
    """Return the records of the nights from one date to another, in order. Raises as `Past.of` does."""
    return Past.of(store, product, first, last).nights(first, last)


def keep(store: Store, product: str, records: list[NightRecord]) -> None:
    """Write records into the objects of their years, as `Past.keep` does."""
    days = [each.as_of for each in records]
    past = Past.of(store, product, min(days), max(days))
    past.put(records)
    past.keep()


def mark_withdrawn(place: NightPlace) -> None:
    """Mark the record of a night that a person has withdrawn, where there is one; of one that stands nothing changes.

    Raises UserError where an object is damaged, TransientError where the store does not answer.
    """

    def mark(current: StoredObject | None) -> bytes | None:
        year = decode_record(current, Year) if current else Year()
        record = year.nights.get(place.as_of.isoformat())
        # Looked at after the record was read: where the night is published and recorded again meanwhile, the
        # replacement is refused, and it is looked at again.
        if record is None or record.withdrawn or not is_withdrawn(place):
            return None
        marked = {**year.nights, place.as_of.isoformat(): replace(record, withdrawn=True)}
        return encode_checked(replace(year, nights=marked).to_json())

    place.store.update(key_of(place.product, place.as_of.year), mark)


def _with(current: StoredObject | None, added: list[NightRecord], before: Mapping[date, NightRecord]) -> bytes | None:
    """Return the object of a year with records in it; None where they are there already.

    `before` are the nights as they were when the records were made from them.
    """
    known = decode_record(current, Year) if current else Year()
    kept = dict(known.nights)
    for record in added:
        day = record.as_of.isoformat()
        kept[day] = merged(record, before.get(record.as_of), kept.get(day))
    if kept == known.nights:
        return None
    return encode_checked(Year(nights=dict(sorted(kept.items()))).to_json())


def merged(record: NightRecord, before: NightRecord | None, current: NightRecord | None) -> NightRecord:
    """Return a night's record with what another run has learnt of it since it was read as `before`.

    What this run has not changed is taken as it is now. A training or a rollback that was asked for stays asked for,
    whoever asked first; of two measurements the one that knows later labels stays.
    """
    if current is None:
        return record
    if current.run != record.run:
        if before and before.run == record.run:  # the night was published anew meanwhile
            return current
        return replace(record, retrain=current.retrain or record.retrain)  # that training has begun all the same
    if before is None or before.run != record.run:  # two runs have recorded it at once
        return replace(_first_come(record, current), truth=newer_truth(record, current))
    names = [each.name for each in fields(NightRecord)]
    changed = {each: getattr(record, each) for each in names if getattr(record, each) != getattr(before, each)}
    changed |= {each: getattr(current, each) for each in ("retrain", "rollback") if getattr(current, each)}
    return replace(current, **changed | {"truth": newer_truth(record, current)})


def _first_come(record: NightRecord, current: NightRecord) -> NightRecord:
    """Return the record that is kept already, with what the other one alone knows."""
    models = {each.model for each in current.shadows}
    shadows = (*current.shadows, *(each for each in record.shadows if each.model not in models))
    scored = {each.name for each in shadows}
    return replace(
        current,
        shadows=shadows,
        not_scored={name: why for name, why in current.not_scored.items() if name not in scored},
        withdrawn=current.withdrawn or record.withdrawn,
        decay=current.decay or record.decay,
        leads={**record.leads, **current.leads},
        retrain=current.retrain or record.retrain,
        rollback=current.rollback or record.rollback,
    )


def newer_truth(record: NightRecord, current: NightRecord) -> Truth | None:
    """Return the measurement that knows later labels, of two records of the same predictions."""
    kept = current.truth
    if kept is None or (record.truth and record.truth.as_of >= kept.as_of):
        return record.truth
    return kept


def key_of(product: str, year: int) -> str:
    """Return the key of the object with a year's nights."""
    return f"{product}/{PAST}/{year}.json"
