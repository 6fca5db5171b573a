"""Keep records and pages of trainings beside the nights, and find them again."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

from tasks.monitoring.status import ShownTraining, page_name
from tasks.publication.manifests import decode_record, encode_checked, read_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.reports.contracts import Training, Trainings
from tasks.runtime.files import atomic_file

TRAININGS, REPORTS = "_trainings", "_reports"
KEPT = timedelta(days=365)
"""How long the page of a training stays whose model was not promoted."""
_PAGE = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-z]+\.html")


def key_of_year(product: str, year: int) -> str:
    """Return the key of the object with the trainings of a year."""
    return f"{product}/{TRAININGS}/{year}.json"


def key_of_page(product: str, run: str, as_of: date) -> str:
    """Return the key of a training's page.

    >>> key_of_page("flight-delays", "flight-delays-2013-06-30-train-6862ea31", date(2013, 6, 30))
    'flight-delays/_reports/2013-06-30-6862ea31.html'
    """
    return f"{product}/{REPORTS}/{page_name(run, as_of)}"


def keep_page(store: Store, product: str, training: Training, page: str) -> str:
    """Put a training's page into the store, in place of the one before; return its address."""
    key, body = key_of_page(product, training.run, training.as_of), page.encode()
    store.update(key, lambda current: None if current and current.body == body else body)
    return store.uri(key)


def keep_training(store: Store, product: str, training: Training) -> Training:
    """Put a training on record, and return it as it is there: see `joined`."""
    kept = training

    def add(current: StoredObject | None) -> bytes | None:
        nonlocal kept
        known = decode_record(current, Trainings) if current else Trainings()
        kept = joined(known.trainings.get(training.run), training)
        merged = {**known.trainings, training.run: kept}
        ordered = sorted(merged.values(), key=lambda each: (each.as_of, each.run))
        added = Trainings(trainings={each.run: each for each in ordered})
        return None if added == known else encode_checked(added.to_json())

    store.update(key_of_year(product, training.as_of.year), add)
    return kept


def joined(before: Training | None, training: Training) -> Training:
    """Return a training with what an earlier look at the same model has left.

    Promote may run again, after a crash or for a person's answer. A verdict that is the same was given when it was
    first; one that finds its own model promoted, or looks at less than before, takes nothing back.
    """
    if before is None:
        return training
    known = {name: getattr(training, name) or getattr(before, name) for name in ("report", "airflow_run")}
    training = replace(training, **known)
    was, now = before.verdict.decision, training.verdict.decision
    is_champion = now in ("promoted", "champion already")
    if was == now or (was == "promoted" and is_champion):
        training = replace(training, decided_at=before.decided_at or training.decided_at)
    if not is_champion or len(training.verdict.gates) >= len(before.verdict.gates):
        return training
    verdict = before.verdict if was == "promoted" else replace(training.verdict, gates=before.verdict.gates)
    known = {name: getattr(training, name) or getattr(before, name) for name in ("version", "champion", "seconds")}
    return replace(training, verdict=verdict, **known)


def shown_trainings(store: Store, product: str) -> list[ShownTraining]:
    """Return what a page shows of the trainings of the last two years of as_of. Raises as `trainings`."""
    keys = sorted(store.list(f"{product}/{TRAININGS}/"))[-2:]
    return [ShownTraining.from_json(each.to_json()) for each in _of(store, keys)]


def trainings(store: Store, product: str, first: date, last: date) -> list[Training]:
    """Return the trainings from one as_of to another, in order.

    Raises UserError where an object is damaged, TransientError where the store does not answer.
    """
    known = _of(store, (key_of_year(product, year) for year in range(first.year, last.year + 1)))
    return [each for each in known if first <= each.as_of <= last]


def all_trainings(store: Store, product: str) -> list[Training]:
    """Return every training on record, in order. Raises as `trainings`."""
    return _of(store, store.list(f"{product}/{TRAININGS}/"))


def _of(store: Store, keys: Iterable[str]) -> list[Training]:
    years = (read_checked(store, key, Trainings)[0] for key in keys)
    known = [each for year in years if year for each in year.trainings.values()]
    return sorted(known, key=lambda each: (each.as_of, each.run))


def collect_old_pages(store: Store, product: str, now: datetime) -> int:
    """Delete the pages of trainings that were written over a year before a moment; return their number.

    Those of trainings whose models were promoted stay: from each published night the way leads to one of them.
    """
    before = now - KEPT
    written = store.list(f"{product}/{REPORTS}/")
    old = [key for key, moment in written.items() if moment < before and _PAGE.fullmatch(key.rpartition("/")[2])]
    if not old:
        return 0
    known = all_trainings(store, product)
    promoted = {key_of_page(product, each.run, each.as_of) for each in known if each.version is not None}
    doomed = [key for key in old if key not in promoted]
    for key in doomed:
        store.delete(key)
    return len(doomed)


def fetch_page(store: Store, product: str, training: Training, folder: Path) -> Path | None:
    """Bring a training's page to a file of `folder`; return None where the store has none."""
    key = key_of_page(product, training.run, training.as_of)
    stored = store.read(key)
    if stored is None:
        return None
    file = folder / key
    with atomic_file(file) as temporary:
        temporary.write_bytes(stored.body)
    return file
