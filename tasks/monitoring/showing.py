"""Bring up to date what the page of the products shows: see `tasks.monitoring.status`."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

from tasks.monitoring.contracts import NightRecord
from tasks.monitoring.past import nights
from tasks.monitoring.status import ShownNight, ShownTraining, ShownVersion, Status, key_of_status, read_status
from tasks.publication.manifests import Damaged, decode_record, encode_checked
from tasks.publication.object_store import Store, StoredObject
from tasks.runtime.errors import UserError

DAYS_SHOWN = 92
"""A quarter."""
TRAININGS_SHOWN, VERSIONS_SHOWN = 26, 26


def show_nights(store: Store, product: str, as_of: date) -> None:
    """Let the page show the nights that are recorded and stand; that of `as_of` was published by this run."""

    def follow(status: Status) -> Status:
        # Read after the status was: where another night is recorded meanwhile, this replacement is refused.
        last = max([as_of, *(each.as_of for each in status.nights)])
        recorded = nights(store, product, last - timedelta(days=DAYS_SHOWN - 1), last)
        known = {day: each for day, each in recorded.items() if not each.withdrawn}
        runs = {(each.as_of, each.run): each.airflow_run for each in status.nights}
        runs.update({(as_of, known[as_of].run): airflow_run()} if as_of in known and airflow_run() else {})
        shown = tuple(_night(each, runs.get((each.as_of, each.run))) for each in known.values())
        return replace(status, nights=shown)

    _update(store, product, follow)


def show_training(store: Store, product: str, training: ShownTraining) -> None:
    """Let the page show a training; a later verdict on the same run takes the place of an earlier one."""

    def follow(status: Status) -> Status:
        known = {each.name: each for each in status.trainings}
        before = known.get(training.name)
        gates = training.gates or (before.gates if before else ())  # a champion is not measured again
        known[training.name] = replace(training, gates=gates)
        kept = sorted(known.values(), key=lambda each: each.decided_at)
        return replace(status, trainings=tuple(kept[-TRAININGS_SHOWN:]))

    _update(store, product, follow)


def show_versions(store: Store, product: str, look: Callable[[], tuple[tuple[ShownVersion, ...], str]]) -> None:
    """Let the page show the versions that `look` finds, and what it says of a hold."""

    def follow(status: Status) -> Status:
        versions, held = look()
        return replace(status, versions=versions[-VERSIONS_SHOWN:], held=held)

    _update(store, product, follow)


def airflow_run() -> str | None:
    """Return Airflow's name of the run that this process works for; None outside of Airflow."""
    return os.environ.get("AIRFLOW_CTX_DAG_RUN_ID") or None


def _night(record: NightRecord, run: str | None) -> ShownNight:
    truth = record.truth
    return ShownNight(
        as_of=record.as_of,
        scored_day=record.scored_day,
        run=record.run,
        rows_in=record.rows_in,
        quarantined=record.quarantined,
        published=record.published,
        model_version=record.model_version,
        mean=record.predictions.mean,
        change=record.change,
        metric=truth.metric if truth else None,
        value=truth.value if truth else None,
        labelled=truth.labelled if truth else None,
        airflow_run=run,
    )


def _update(store: Store, product: str, follow: Callable[[Status], Status]) -> None:
    """Replace the status by what follows from it; nothing is written where nothing changes."""

    def change(current: StoredObject | None) -> bytes | None:
        after = follow(_known(store, product, current))
        if current is None and after == Status(product=product):
            return None
        body = encode_checked(after.to_json())
        return None if current and current.body == body else body

    store.update(key_of_status(product), change)


def _known(store: Store, product: str, current: StoredObject | None) -> Status:
    """Return the status that an object holds, or an empty one in place of one that lies damaged."""
    if current is None:
        return Status(product=product)
    try:
        return decode_record(current, Status)
    except (Damaged, UserError):
        try:  # it may have arrived damaged, and lie there whole
            return read_status(store, product) or Status(product=product)
        except UserError:
            return Status(product=product)
