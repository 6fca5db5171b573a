"""Read and keep the records of a product's nights: the object of a year is read once, and written once."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial

from tasks.monitoring.contracts import PAST, NightRecord, Truth, Year
from tasks.publication.manifests import decode_record, encode_checked, read_checked
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
            body = _with(self.read.get(year), of_year)
            faults.failpoint("monitor: the past is about to be kept")
            if body is not None and not self.store.replace(key_of(self.product, year), body, self.read.get(year)):
                self.store.update(key_of(self.product, year), partial(_with, added=of_year))
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


def _with(current: StoredObject | None, added: list[NightRecord]) -> bytes | None:
    """Return the object of a year with records in it; None where they are there already."""
    known = decode_record(current, Year) if current else Year()
    merged = dict(known.nights)
    for record in added:
        before = merged.get(record.as_of.isoformat())
        merged[record.as_of.isoformat()] = replace(record, truth=newer_truth(record, before))
    if merged == known.nights:
        return None
    return encode_checked(Year(nights=dict(sorted(merged.items()))).to_json())


def newer_truth(record: NightRecord, before: NightRecord | None) -> Truth | None:
    """Return the measurement of a night that knows later labels; one of another run's predictions says nothing."""
    kept = before.truth if before and before.run == record.run else None
    if kept is None or (record.truth and record.truth.as_of >= kept.as_of):
        return record.truth
    return kept


def key_of(product: str, year: int) -> str:
    """Return the key of the object with a year's nights."""
    return f"{product}/{PAST}/{year}.json"
