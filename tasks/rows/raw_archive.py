"""Keep the index of raw data, data/raw/<product>: a log of versions, of which nothing that is stored is rewritten.

rows/ holds the rows that came on time by event date, labels/ the labels and changes/ the versions of rows beside the
plan by the date on which each became known. The index is written last, so that a run that was killed has stored
nothing: `put_right` removes what it left.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from model.heads.multilabel import LABEL_SEPARATOR
from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import cell_text
from tasks.rows.keys import row_ids
from tasks.rows.partitions import Partitions
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
    of: tuple[str, str] | None = None
    """Labels: the first and last event date that they are of; None in an index of before this was kept."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StoredDay":
        """Return the entry of an index."""
        digest = content["digest"] if "digest" in content else content["sha256"]
        return cls(rows=content["rows"], digest=digest, of=tuple(content["of"]) if "of" in content else None)

    def to_json(self) -> dict[str, object]:
        """Return the entry of an index."""
        of = {} if self.of is None else {"of": list(self.of)}
        return {"rows": self.rows, "digest": self.digest, **of}


@dataclass(frozen=True, kw_only=True)
class StoredChanges:
    """The versions of rows that became known beside the plan on one date."""

    rows: int
    """How many."""
    late: int
    """How many of them are late rows."""
    of: dict[str, str]
    """What identifies those of each event date."""


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
    refetched: dict[str, str] = field(default_factory=dict)
    """The reason with which a person had a date fetched again, by event date; `retaken` in the index."""
    left: dict[str, str] = field(default_factory=dict)
    """What identifies the differences of an event date that were told and not taken."""
    seen: str = ""
    """The digest of seen.json, see `tasks.rows.intake.seen`."""
    as_of: str = ""
    """The newest as_of of all runs so far; empty before the first."""
    earlier_as_of: str = ""
    """The newest as_of before that one; empty where there is none."""
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
        newest = content.get("as_of", "") or max(labels, default="") or max(rows, default="")
        before = {day: stored["retaken"] for day, stored in content["rows"].items() if "retaken" in stored}
        return cls(
            folder=folder,
            rows=rows,
            labels=labels,
            changes={known: StoredChanges(**stored) for known, stored in content.get(CHANGES, {}).items()},
            undated={*content["undated"]},
            refetched={**before, **content.get("retaken", {})},
            left=content.get("left", {}),
            seen=content.get("seen", ""),
            as_of=newest,
            earlier_as_of=content.get("earlier_as_of", newest),
            first_as_of=content.get("first_as_of", newest),
            anew=content.get("anew"),
        )

    def save(self) -> None:
        """Commit: from here on the dates are stored."""
        content: dict[str, object] = {
            kind: {day: stored.to_json() for day, stored in sorted(self.days(kind).items())} for kind in TABLES
        }
        content[CHANGES] = {known: asdict(stored) for known, stored in sorted(self.changes.items())}
        content |= {"undated": sorted(self.undated), "retaken": dict(sorted(self.refetched.items()))}
        content |= {"left": dict(sorted(self.left.items())), "seen": self.seen}
        content |= {"as_of": self.as_of, "earlier_as_of": self.earlier_as_of, "first_as_of": self.first_as_of}
        content |= {"anew": self.anew} if self.anew else {}
        write_json(self.folder / INDEX, content)

    def before(self, as_of: date) -> date | None:
        """Return the newest as_of of all runs so far that is before another one."""
        newest = self.as_of if self.as_of < as_of.isoformat() else self.earlier_as_of
        return date.fromisoformat(newest) if newest else None

    def note_run(self, as_of: date) -> None:
        """Keep that a run of this as_of has been: the newest, the one before it and the oldest of all runs follow."""
        if self.as_of < as_of.isoformat():
            self.earlier_as_of, self.as_of = self.as_of, as_of.isoformat()
        self.first_as_of = min(self.first_as_of or as_of.isoformat(), as_of.isoformat())

    def days(self, kind: Table) -> dict[str, StoredDay]:
        """Return the stored dates of rows or of labels."""
        return self.rows if kind == "rows" else self.labels

    def total(self, kind: Table) -> int:
        """Return how many rows were ever stored, each once, or how many versions of labels."""
        late = sum(stored.late for stored in self.changes.values()) if kind == "rows" else 0
        return sum(stored.rows for stored in self.days(kind).values()) + late

    def event_days(self) -> set[str]:
        """Return the event dates that have rows, on time or late."""
        return {*self.rows}.union(*(stored.of for stored in self.changes.values()))

    def to_refetch(self, decided: Mapping[str, str], last: str) -> dict[str, str]:
        """Return the stored dates up to `last` that a person has fetched again and that were not yet, with reasons."""
        stored = self.event_days()
        return {
            day: reason
            for day, reason in decided.items()
            if day <= last and day in stored and self.refetched.get(day) != reason
        }

    def partitions(self, kind: str) -> Partitions:
        """Return the files of rows, labels or changes."""
        return Partitions(self.folder / kind)

    def read(self, kind: str, days: Iterable[str], columns: list[str] | None = None) -> pd.DataFrame:
        """Return stored dates as one frame with the column `dt`."""
        return self.partitions(kind).read(map(date.fromisoformat, days), columns)

    def compact(self) -> None:
        """Make one file of each old month, so that the number of files stays small over years; no row changes."""
        for kind, stored in (("rows", self.rows), ("labels", self.labels), (CHANGES, self.changes)):
            if stored:
                self.partitions(kind).compact(date.fromisoformat(max(stored)))

    def put_right(self) -> None:
        """Remove what a run that was killed has left: files of dates that are not in the index, and rows beyond it."""
        for kind, stored in (("rows", self.rows), ("labels", self.labels), (CHANGES, self.changes)):
            files = self.partitions(kind)
            for file in files.folder.glob(".dt=*"):
                file.unlink()
            files.remove([day for day in files.days() if day.isoformat() not in stored])
            newest = max(stored, default="")  # the one that a run of the same as_of adds to
            if kind != "rows" and newest and files.n_rows(day := date.fromisoformat(newest)) > stored[newest].rows:
                files.write(day, files.table(day).slice(0, stored[newest].rows))


def undated_row_ids(undated: pd.DataFrame, product: Product) -> pd.Series:
    """Return an id for each row without an event date, which does not depend on the declared columns.

    It is made of key, time and the text of a row that cannot be read, which every version of a declaration has.
    """
    lasting = dict.fromkeys([*product.key, product.time, *UNREADABLE_COLUMNS])
    return row_ids(undated.reindex(columns=list(lasting)))


def canonical(table: pa.Table) -> pa.Table:
    """Return rows as they are stored: the same bytes for the same cells, whatever lay beside them in a delivery."""
    columns: dict[str, pa.Array] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if column.null_count == len(column):
            if name in UNREADABLE_COLUMNS:
                continue
            column = pa.nulls(len(column))
        columns[name] = column
    return pa.table(columns)


def content_digest(table: pa.Table) -> str:
    """Return what identifies the cells of a table, with their types and their order."""
    found = hashlib.blake2b(digest_size=16)
    for name in table.column_names:
        column = table[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
        kind = "string" if pa.types.is_large_string(column.type) else str(column.type)
        found.update(f"{name}\0{kind}\0{len(column)}\0".encode())
        if column.null_count:
            found.update(np.packbits(pc.is_valid(column).to_numpy(zero_copy_only=False)).tobytes())
        for part in _cells(column):
            found.update(part)
    return found.hexdigest()


def _cells(column: pa.Array) -> list[bytes | memoryview]:
    """Return the cells of a column as bytes that do not depend on where they lie in memory."""
    kind = column.type
    if pa.types.is_null(kind):
        return []
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        filled = pc.fill_null(column, "" if not pa.types.is_binary(kind) else b"")
        lengths = pc.binary_length(filled).cast(pa.int64()).to_numpy(zero_copy_only=False)
        size = np.dtype(np.int64 if pa.types.is_large_string(kind) else np.int32)
        offsets = np.frombuffer(filled.buffers()[1], size)[filled.offset : filled.offset + len(filled) + 1]
        data = filled.buffers()[2]
        return [lengths.tobytes(), memoryview(data)[offsets[0] : offsets[-1]] if data is not None else b""]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return [pc.fill_null(column, pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False).tobytes()]
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        numbers = column.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
        return [pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False).tobytes()]
    return [str(column.to_pylist()).encode()]  # lists of labels, decimals: rare


_UNIFORM = ("string", "integer", "floating", "boolean", "bytes", "date", "datetime", "datetime64", "empty")
"""What pandas calls the cells of a column that hold neither mappings nor decimals."""


def storable(values: pd.Series) -> pd.Series:
    """Return a column that Parquet can hold: one of mixed types becomes text, for `validate` to judge cell by cell."""
    if values.dtype != object:
        return values
    found = pd.api.types.infer_dtype(values, skipna=True)
    # Of decimals Arrow would give each cell the digits of the longest one.
    if found in _UNIFORM or not (found == "decimal" or values.map(lambda cell: isinstance(cell, dict | Decimal)).any()):
        try:
            pa.array(values, from_pandas=True)
            return values
        except (pa.ArrowException, OverflowError):
            pass
    return values.map(
        lambda cell: LABEL_SEPARATOR.join(map(str, cell)) if isinstance(cell, list) else cell_text(cell),
        na_action="ignore",
    )
