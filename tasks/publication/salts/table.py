"""Find, make and delete the salts of a product's subjects: <url>/<product>/_salts/<digit>.json, sixteen objects.

A subject is a value of a column that is declared `pii: salted`. Its id is a keyed hash, whose first digit says in which
object its salt lies. An object changes by conditional PUT alone: a new salt is in the store before any row that was
hashed with it is written, so that a run which dies and one on another machine find the same, and two that meet a
subject at once agree. Nothing else keeps a salt: without it what was stored under the hash is of nobody, even for one
who has the key and the value.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tasks.publication.object_store import Store, StoredObject
from tasks.publication.salts.shard import Forgotten, Shard
from tasks.rows.personal_data import Salts
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError

FOLDER, DIGITS = "_salts", "0123456789abcdef"
SALT_BYTES = 16
_HEX = np.dtype("S32")


@dataclass(frozen=True)
class _Known:
    """What was read of one object."""

    subjects: np.ndarray
    """Ids in order. Shapes: bytes [n]."""
    salts: np.ndarray
    """Their salts. Shapes: bytes [n]."""
    forgotten: frozenset[str]
    """Ids that have no salt any more."""

    @classmethod
    def of(cls, shard: Shard) -> "_Known":
        subjects, salts = np.array(list(shard.salts), _HEX), np.array(list(shard.salts.values()), _HEX)
        order = np.argsort(subjects)
        return cls(subjects[order], salts[order], frozenset(shard.forgotten))

    def among(self, wanted: Sequence[str]) -> dict[str, str]:
        """Return the salts of those that have one."""
        if not len(self.subjects):
            return {}
        asked = np.array(wanted, _HEX)
        at = np.minimum(np.searchsorted(self.subjects, asked), len(self.subjects) - 1)
        found = zip(wanted, self.salts[at], self.subjects[at] == asked, strict=True)
        return {subject: salt.decode() for subject, salt, is_known in found if is_known}


class SaltTable:
    """The salts of one product. What was read stays in memory: 64 bytes a subject."""

    def __init__(self, store: Store, product: str) -> None:
        """Read nothing yet. `store` is below the product's `publish.url`."""
        self.store, self._product = store, product
        self._known: dict[str, _Known] = {}
        self._counted: dict[str, int] = {}
        self._is_created = False

    def key(self, digit: str) -> str:
        """Return the key of the object for the subjects whose ids begin with a digit."""
        return f"{self._product}/{FOLDER}/{digit}.json"

    def missing(self, counted: Mapping[str, int]) -> list[str]:
        """Return what is wrong with the objects, one line each: lost, damaged, or older than the rows that are stored.

        `counted` is how many subjects each had, by its digit, when rows were stored last. Raises TransientError where
        the store does not answer.
        """
        found, lost = [], []
        for digit in DIGITS:
            key = self.key(digit)
            if (stored := self.store.read(key)) is None:
                lost.append(self.store.uri(key))
                continue
            try:
                self._raise_if_older(digit, Shard.decode(stored), counted)
            except (UserError, TransientError) as error:
                found.append(str(error))
        if lost:
            why = "by which stored rows are hashed (pii: salted), and which nothing can make again"
            found.insert(0, f"{len(lost)} of {len(DIGITS)} objects of salts, such as {lost[0]}, {why}")
        return found

    def known(self, subjects: Sequence[str], /) -> dict[str, str]:
        """Return the salts of those subjects that have one. Makes none."""
        found: dict[str, str] = {}
        for digit, wanted in _by_digit(subjects):
            if digit not in self._known and (shard := self._load(digit)):
                self._known[digit] = _Known.of(shard)
            found |= self._known[digit].among(wanted) if digit in self._known else {}
        return found

    def minting(self, is_first: bool, counted: dict[str, int] | None = None) -> Salts:
        """Return the function that makes salts where there are none; `is_first` says that no row is stored yet.

        `counted`, how many subjects each object had when rows were stored last, follows what the store has from now on.
        """
        self._counted = {} if counted is None else counted
        return partial(self.mint, is_first=is_first)

    def mint(self, subjects: Sequence[str], /, *, is_first: bool = False) -> dict[str, str]:
        """Return the salts of subjects, made now where there is none; one that was forgotten has none.

        Raises UserError where an object by which stored rows are hashed is lost, or older than these rows.
        """
        if is_first and not self._is_created:
            self._create()
        found: dict[str, str] = {}
        for digit, wanted in _by_digit(subjects):
            if lacking := self._lacking(digit, wanted):
                self._mint(digit, lacking)
            found |= self._known[digit].among(wanted)
        return found

    def forget(self, subject: str, decision: Forgotten) -> bool:
        """Delete the salt of a subject, and drop its rows from now on; return False where that was so before."""

        def without(stored: StoredObject | None) -> bytes | None:
            shard = self._decoded(key, stored)
            if subject in shard.forgotten:
                return None
            kept = {each: salt for each, salt in shard.salts.items() if each != subject}
            return replace(shard, salts=kept, forgotten={**shard.forgotten, subject: decision}).encode()

        key = self.key(subject[0])
        self._known.pop(subject[0], None)
        return self.store.update(key, without)

    def state(self, subject: str) -> Forgotten | bool:
        """Return who had a subject forgotten; else whether it has a salt. Raises UserError where there are no salts."""
        key = self.key(subject[0])
        shard = self._decoded(key, self.store.read(key))
        return shard.forgotten.get(subject, subject in shard.salts)

    def _create(self) -> None:
        empty = Shard(product=self._product).encode()
        for digit in DIGITS:
            self.store.update(self.key(digit), lambda stored: None if stored else empty)
            faults.failpoint("salts: an object is created")
        self._is_created = True

    def _lacking(self, digit: str, wanted: Sequence[str]) -> Sequence[str]:
        """Return those of whom it is not known that they have a salt, or have none any more."""
        if (known := self._known.get(digit)) is None:
            return wanted
        found = known.among(wanted)
        return [each for each in wanted if each not in found and each not in known.forgotten]

    def _mint(self, digit: str, lacking: Sequence[str]) -> None:
        """Give subjects a salt that have none and were not forgotten, and know what is stored then."""
        now = Shard(product=self._product)

        def with_new(stored: StoredObject | None) -> bytes | None:
            nonlocal now
            now = self._decoded(self.key(digit), stored)
            self._raise_if_older(digit, now, self._counted)
            without = [each for each in lacking if each not in now.salts and each not in now.forgotten]
            if not without:
                return None
            now = replace(now, salts={**now.salts, **{each: secrets.token_hex(SALT_BYTES) for each in without}})
            return now.encode()

        self.store.update(self.key(digit), with_new)
        faults.failpoint("salts: new ones are stored")
        self._known[digit] = _Known.of(now)
        self._counted[digit] = now.n_subjects

    def _load(self, digit: str) -> Shard | None:
        stored = self.store.read(self.key(digit))
        return Shard.decode(stored) if stored else None

    def _raise_if_older(self, digit: str, shard: Shard, counted: Mapping[str, int]) -> None:
        if shard.n_subjects < counted.get(digit, 0):
            raise UserError(
                f"{self.store.uri(self.key(digit))}: must have the salts of {counted[digit]:,} subjects, as when rows "
                f"were stored last, and has {shard.n_subjects:,}: it is an older copy; put back a newer one, or have "
                "history fetched anew (make anew), since whoever it lacks would become another person"
            )

    def _decoded(self, key: str, stored: StoredObject | None) -> Shard:
        if stored is None:
            raise UserError(
                f"{self.store.uri(key)}: must have the salts by which stored rows of {self._product} are hashed, and "
                "is not there; put back the store's backup of it: with new salts every row would be another one. Where "
                "a column was declared salted after the first run, declare it as before, or rename the product"
            )
        return Shard.decode(stored)


def _by_digit(subjects: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the subjects of each object."""
    found: dict[str, list[str]] = {}
    for each in subjects:
        found.setdefault(each[0], []).append(each)
    yield from sorted(found.items())
