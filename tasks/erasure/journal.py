"""Keep what an erasure has found, so that another try of it ends the same: <LAMPLIGHTER_HOME>/erasures/<product>/.

A journal is named by the keyed hash of what is erased, and says no value of it: keys are kept as keyed hashes. What is
done is found done by looking; kept is what could not be found again once data are gone.

The origin keeps the outcome, refs/erasures/<product>: which data are gone on purpose, and what a run must know of to go
on. It is moved before anything is removed.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from pydantic.dataclasses import dataclass

from tasks.erasure.subject import Subject
from tasks.rows.intake.erased import Tombstone
from tasks.runs.registry.erasures import Erasures, read_erasures, write_erasures
from tasks.runtime.files import write_json
from tasks.runtime.records import RECORD, Record
from tasks.runtime.settings import settings


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Journal(Record):
    """What an erasure has found so far."""

    keys: tuple[str, ...] = ()
    """Keyed hashes of the keys of its rows."""
    objects: tuple[str, ...] = ()
    """The hashes of the data that hold it, in cache or remote."""
    models: tuple[str, ...] = ()
    """The hashes of exported models that have learnt from its rows."""
    showing: tuple[str, ...] = ()
    """Those of them whose files show it."""
    rows: dict[str, int] | None = None
    """Raw rows by event date; None until they were counted."""
    done: bool = False
    """Whether all of it was erased, and a search has found nothing."""


def file_of(subject: Subject) -> Path:
    """Return the place of a subject's journal."""
    return settings().home / "erasures" / subject.product.name / f"{subject.hmac[:32]}.json"


def read_journal(subject: Subject) -> Journal:
    """Return what an earlier try has found, and let the subject know its keys."""
    file = file_of(subject)
    journal = Journal.from_json(file.read_bytes()) if file.exists() else Journal()
    subject.hashes = {*journal.keys}
    return journal


def write_journal(subject: Subject, journal: Journal) -> Journal:
    """Keep a journal, with the keys that the subject knows."""
    known = {*journal.keys, *(subject.hash_of(key) for key in subject.keys)}
    journal = replace(journal, keys=tuple(sorted(known)))
    write_json(file_of(subject), journal.to_json())
    return journal


def note_in_origin(subject: Subject, stone: Tombstone, journal: Journal, revision: str) -> None:
    """Let the origin, whose newest commit is `revision`, say what was erased, and which data are gone with it."""
    product = subject.product.name
    with tempfile.TemporaryDirectory(dir=settings().home) as folder:
        known, at = read_erasures(product, Path(folder))
        now = Erasures(
            erased=tuple(dict.fromkeys([*known.erased, stone.hmac])),
            revision=known.revision if stone.hmac in known.erased else revision,
            objects=tuple(sorted({*known.objects, *journal.objects})),
            models=tuple(sorted({*known.models, *journal.models})),
        )
        if now != known:
            write_erasures(product, now, at, Path(folder))
