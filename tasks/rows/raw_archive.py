"""Store what a source delivered by date, with an index of it: data/raw/<product>.

The archive is append-only: a date that is stored is not rewritten, unless a person has it fetched again. The index is
written last, so that a run that was killed has stored nothing: the next one removes its files.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from model.features.kinds import KINDS
from model.heads.multilabel import LABEL_SEPARATOR
from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import cell_text, parse_time, without_nan
from tasks.rows.keys import key_text, row_hashes, row_ids
from tasks.rows.partitions import n_rows, partition, partition_day, read_table, write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.paths import TABLES, Table

INDEX = "index.json"
CHANGES = "changes"
"""The folder of versions of rows beside the plan, under the date on which each became known."""
DT_OF, CHANGE, SLOT = "dt_of", "change", "slot"
"""Columns of a change: the event date, what it is, and its place among the rows of that date."""
LATE, CHANGED, WITHDRAWN = "late", "changed", "withdrawn"


@dataclass(frozen=True, kw_only=True)
class StoredDay:
    """One date's rows, or the labels that became known on it."""

    rows: int
    """How many."""
    digest: str
    """What identifies their content: `content_digest`, or what earlier versions kept under `sha256`."""
    refetched: str | None = None
    """The reason with which a person had the date fetched again, if one did; `retaken` in the index."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StoredDay":
        """Return the entry of an index."""
        digest = content["digest"] if "digest" in content else content["sha256"]
        return cls(rows=content["rows"], digest=digest, refetched=content.get("retaken"))

    def to_json(self) -> dict[str, object]:
        """Return the entry of an index."""
        reason = {} if self.refetched is None else {"retaken": self.refetched}
        return {"rows": self.rows, "digest": self.digest, **reason}


@dataclass(frozen=True, kw_only=True)
class StoredChanges:
    """The versions of rows that became known beside the plan on one date."""

    rows: int
    """How many."""
    of: dict[str, str]
    """What identifies those of each event date."""


@dataclass(frozen=True, kw_only=True)
class ChangedDay:
    """How a stored date differs from the same date as the source delivers it now, in rows."""

    added: int
    """Keys that are not stored."""
    removed: int
    """Stored keys that are delivered no longer."""
    differing: int
    """Stored keys with other cells now."""


@dataclass(kw_only=True)
class RawIndex:
    """The dates that are stored of one product; `save` commits them."""

    folder: Path
    """data/raw/<product>."""
    rows: dict[str, StoredDay] = field(default_factory=dict)
    """By event date."""
    labels: dict[str, StoredDay] = field(default_factory=dict)
    """By the date on which they became known."""
    changes: dict[str, StoredChanges] = field(default_factory=dict)
    """By the date on which they became known."""
    undated: set[str] = field(default_factory=set)
    """Ids of the stored rows without an event date: see `undated_row_ids`."""
    as_of: str = ""
    """The newest as_of of all runs so far; empty before the first."""
    first_as_of: str = ""
    """The oldest as_of of all runs so far: what is older came as history, and its days are not judged. In an index of
    before this was kept, the newest as_of of then."""
    anew: str | None = None
    """The reason with which a person let lost history begin anew on that date; None where none was lost."""

    @classmethod
    def load(cls, folder: Path) -> "RawIndex":
        """Return the index of a folder, or an empty one. Raises UserError where it is damaged."""
        if not (folder / INDEX).exists():
            return cls(folder=folder)
        content = read_json(folder / INDEX)
        try:
            return cls._from_json(folder, content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / INDEX}: must be an index of raw data, and is damaged ({type(error).__name__}: {error}); "
                "restore it: dvc checkout --force"
            ) from None

    @classmethod
    def _from_json(cls, folder: Path, content: Mapping[str, Any]) -> "RawIndex":
        rows, labels = ({day: StoredDay.from_json(stored) for day, stored in content[kind].items()} for kind in TABLES)
        newest = content.get("as_of", "")
        return cls(
            folder=folder,
            rows=rows,
            labels=labels,
            changes={known: StoredChanges(**stored) for known, stored in content.get(CHANGES, {}).items()},
            undated={*content["undated"]},
            as_of=newest,
            first_as_of=content.get("first_as_of", newest),
            anew=content.get("anew"),
        )

    def save(self) -> None:
        """Commit: from here on the dates are stored."""
        days = {kind: {day: stored.to_json() for day, stored in self.days(kind).items()} for kind in TABLES}
        runs = {"as_of": self.as_of, "first_as_of": self.first_as_of} | ({"anew": self.anew} if self.anew else {})
        changes = {CHANGES: {known: asdict(stored) for known, stored in self.changes.items()}} if self.changes else {}
        write_json(self.folder / INDEX, {**days, **changes, "undated": sorted(self.undated), **runs})

    def note_run(self, as_of: date) -> None:
        """Keep that a run of this as_of has been: the newest and the oldest of all runs follow."""
        self.as_of = max(self.as_of, as_of.isoformat())
        self.first_as_of = min(self.first_as_of or as_of.isoformat(), as_of.isoformat())

    def days(self, kind: Table) -> dict[str, StoredDay]:
        """Return the stored dates of rows or of labels."""
        return self.rows if kind == "rows" else self.labels

    def file(self, kind: Table, day: str) -> Path:
        """Return the file of one date."""
        return partition(self.folder / kind, date.fromisoformat(day))

    def files(self, kind: Table) -> list[Path]:
        """Return the files of the stored dates."""
        return [self.file(kind, day) for day in self.days(kind)]

    def total(self, kind: Table) -> int:
        """Return how many rows or labels are stored."""
        return sum(stored.rows for stored in self.days(kind).values())

    def refetched(self, decided: Mapping[str, str], last: str) -> dict[str, str]:
        """Return the stored dates up to `last` that a person has fetched again and that were not yet, with reasons."""
        return {
            day: reason
            for day, reason in decided.items()
            if day <= last and day in self.rows and self.rows[day].refetched != reason
        }

    def forget_partitions(self, days: Iterable[str], product: Product) -> None:
        """Drop dates from the index so that they are stored again. Their files stay until new ones replace them."""
        for day in days:
            rows = read_table(self.file("rows", day))
            self.undated -= {*undated_row_ids(rows[parse_time(rows[product.time]).isna()], product)}
            del self.rows[day]

    def note_refetched(self, refetched: Mapping[str, str]) -> None:
        """Keep the reasons with which dates were fetched again; a date may have no rows any more."""
        for day, reason in refetched.items():
            if day in self.rows:
                self.rows[day] = replace(self.rows[day], refetched=reason)

    def remove_uncommitted(self) -> None:
        """Remove files of dates that are not in the index, such as those of a run that was killed."""
        for kind in TABLES:
            folder = self.folder / kind
            for file in [*folder.glob(".dt=*"), *folder.glob("dt=*.parquet")]:
                if file.name.startswith(".") or partition_day(file).isoformat() not in self.days(kind):
                    file.unlink()

    def append(self, table: pd.DataFrame, kind: Table, product: Product) -> pd.DataFrame:
        """Write the dates of `table` (its column `dt`) that are not stored yet, and return their rows."""
        stored = self.days(kind)
        new = table[~table["dt"].isin(stored)]
        for day, group in new.groupby("dt", sort=True):
            part = group.drop(columns="dt")
            write_table(self.file(kind, str(day)), part.apply(storable))
            hashed = with_event_date(part, product) if kind == "rows" else part
            stored[str(day)] = StoredDay(rows=len(part), digest=digest(hashed))
        return new

    def extend_labels(self, table: pd.DataFrame, day: str) -> pd.DataFrame:
        """Add to the labels of `day`, stored by a run of the same as_of, those that it could not read, and return them.

        What is stored stays. A run that was killed after it wrote has its labels counted by the next one.
        """
        new = table[table["dt"] == day] if day in self.labels else table.head(0)
        if day in self.labels and (len(new) or n_rows(self.file("labels", day)) != self.labels[day].rows):
            before = read_table(self.file("labels", day))
            joined = pd.concat([before.astype(object), new[before.columns].astype(object)], ignore_index=True)
            write_table(self.file("labels", day), joined.apply(storable))
            self.labels[day] = replace(self.labels[day], rows=len(joined), digest=digest(joined))
        return new

    def changed_days(
        self, dated: pd.DataFrame, product: Product, start: date | None, last: str
    ) -> dict[str, ChangedDay]:
        """Return the stored dates that the source delivers otherwise now.

        Compared are the columns that were declared then and are now, on the dates from `start` to `last`.
        """
        now_by_day = {str(day): group.drop(columns="dt") for day, group in dated.groupby("dt", sort=True)}
        nothing = dated.drop(columns="dt").head(0)
        changed = {}
        for day, stored in sorted(self.rows.items()):
            was_asked_for = day <= last and (start is None or day >= start.isoformat())
            now = now_by_day.get(day, nothing)
            if (was_asked_for or len(now)) and digest(now) != stored.digest:
                then = read_table(self.file("rows", day))
                shared = [str(name) for name in now if name in then]
                then = with_event_date(then.reindex(columns=now.columns), product)
                now, then = _without_nan(now, product), _without_nan(then, product)
                if digest(now[shared]) != digest(then[shared]):
                    changed[day] = _compare(now, then, shared, product)
        return changed


def _without_nan(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return rows in which a number that is none is missing: earlier versions stored it as the text NaN."""
    numbers = {name: without_nan(rows[name]) for name, kind in product.kinds.items() if KINDS[kind].cells == "float64"}
    return rows.assign(**{name: cells for name, cells in numbers.items() if name in rows})


def _compare(now: pd.DataFrame, then: pd.DataFrame, shared: list[str], product: Product) -> ChangedDay:
    keys_now, keys_then = set(key_text(now, product.key)), set(key_text(then, product.key))
    equal = set(row_hashes(now[shared])) & set(row_hashes(then[shared]))
    return ChangedDay(
        added=len(keys_now - keys_then),
        removed=len(keys_then - keys_now),
        differing=max(0, len(keys_now & keys_then) - len(equal)),
    )


def with_event_date(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return the rows that have an event date."""
    return rows[parse_time(rows[product.time]).notna()]


def undated_row_ids(undated: pd.DataFrame, product: Product) -> pd.Series:
    """Return an id for each row without an event date, which does not depend on the declared columns.

    It is made of key, time and the text of a row that cannot be read, which every version of a declaration has.
    """
    lasting = dict.fromkeys([*product.key, product.time, *UNREADABLE_COLUMNS])
    return row_ids(undated.reindex(columns=list(lasting)))


def digest(table: pd.DataFrame) -> str:
    """Return a hash of rows that does not depend on their order."""
    return hashlib.sha256("".join(f"{value:016x}" for value in sorted(row_hashes(table))).encode()).hexdigest()


def storable(values: pd.Series) -> pd.Series:
    """Return a column that Parquet can hold: one of mixed types becomes text, for `validate` to judge cell by cell."""
    if values.dtype == object:
        try:
            # Of decimals Arrow would give each cell the digits of the longest one.
            if not values.map(lambda cell: isinstance(cell, dict | Decimal)).any():
                pa.array(values, from_pandas=True)
                return values
        except (pa.ArrowException, OverflowError):
            pass
        return values.map(
            lambda cell: LABEL_SEPARATOR.join(map(str, cell)) if isinstance(cell, list) else cell_text(cell),
            na_action="ignore",
        )
    return values
