"""Take rows out of data/raw/<product> as if they had never been delivered: rows, versions, labels and the index.

A row of a date and all its versions have one slot, by its place among the rows of the date; the rows behind those that
go move up, and versions name the new places.
"""

from collections import Counter, defaultdict
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.erasure.partings import Holds, check_equal, days_in, kept_rows
from tasks.erasure.subject import Subject
from tasks.rows.casting import parse_time
from tasks.rows.corrections import changed_row_ids, raw_row_ids
from tasks.rows.keys import content_of
from tasks.rows.raw_archive import (
    CHANGE,
    CHANGES,
    DT_OF,
    LATE,
    SLOT,
    RawIndex,
    StoredChanges,
    StoredDay,
    canonical,
    content_digest,
    undated_row_ids,
)
from tasks.runtime.paths import Table

Slots = dict[str, set[int]]
"""By event date, the places of rows that go."""


class RawErasure:
    """The erasure of rows from one folder of raw data."""

    def __init__(self, raw: Path, subject: Subject, holds: Holds) -> None:
        """Read the index. Raises UserError where it is damaged."""
        self._subject, self._holds, self._index = subject, holds, RawIndex.load(raw)
        self.rows: Counter[str] = Counter()
        """Rows that went, by event date, each once whatever versions it had."""
        self.labels: Counter[str] = Counter()
        """Versions of labels that went, by the date on which they became known."""
        self.corrected: set[tuple[str, str, str]] = set()
        """Kind, date and id of rows that went, as corrections would name them."""

    def erase(self) -> bool:
        """Take the rows out; return whether there were any."""
        slots = self._slots()
        for day, gone in slots.items():
            self.rows[day] = len(gone)
            self._write_rows(day, gone)
        for known in [*self._index.changes] if slots else []:
            self._write_changes(known, slots)
        self._write_labels()
        for day in slots:
            self._index.left.pop(day, None)
        if self.rows or self.labels:
            self._index.save()
        return bool(self.rows or self.labels)

    def _slots(self) -> Slots:
        """Return the places of all rows of which a version goes, by event date."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for kind in ("rows", CHANGES):
            files = self._index.partitions(kind)
            for day in days_in(files.folder, self._holds):
                table = files.table(day)
                gone = self._subject.of_table(table)
                if not gone.any():
                    continue
                if kind == "rows":
                    found[day.isoformat()] |= {*map(int, np.flatnonzero(gone))}
                else:
                    changes = table.select([DT_OF, SLOT]).to_pandas()[gone]
                    for name, slot in changes.itertuples(index=False):
                        found[str(name)].add(int(slot))
        return dict(sorted(found.items()))

    def _write_rows(self, day: str, slots: set[int]) -> None:
        if day not in self._index.rows:  # all its rows came late
            return
        at = date.fromisoformat(day)
        files = self._index.partitions("rows")
        table, schema = files.table(at), files.schema(at)
        gone = np.isin(np.arange(len(table)), sorted(slots))
        if not gone.any():
            return
        self._forget_undated(table.filter(pa.array(gone)))
        self._note_corrected("rows", day, table, gone)
        kept = canonical(kept_rows(table, gone).cast(schema.remove_metadata()))
        self._write("rows", at, kept, kept_rows(table, gone))
        if len(kept):
            self._index.rows[day] = StoredDay(rows=len(kept), digest=content_digest(kept))
        else:
            del self._index.rows[day]

    def _write_changes(self, known: str, slots: Slots) -> None:
        at, files = date.fromisoformat(known), self._index.partitions(CHANGES)
        table, schema = files.table(at), files.schema(at)
        days, places = table[DT_OF].to_pylist(), table[SLOT].to_numpy()
        gone = np.array([int(slot) in slots.get(day, ()) for day, slot in zip(days, places, strict=True)], bool)
        moved = np.array(
            [
                int(slot) - sum(each < slot for each in slots.get(day, ()))
                for day, slot in zip(days, places, strict=True)
            ]
        )
        if not gone.any() and (moved == places).all():
            return
        column = table.column_names.index(SLOT)
        moved_up = table.set_column(
            column, table.schema.field(column), pa.array(moved, table.schema.field(column).type)
        )
        kept = canonical(kept_rows(moved_up, gone).cast(schema.remove_metadata()))
        self._write(CHANGES, at, kept, kept_rows(moved_up, gone))
        cells = table.filter(pa.array(gone)).to_pandas(integer_object_nulls=True)
        ids = changed_row_ids(cells.drop(columns=[DT_OF, CHANGE, SLOT]))
        self.corrected |= {("rows", str(day), each) for day, each in zip(cells[DT_OF], ids, strict=True)}
        if not len(kept):
            del self._index.changes[known]
            return
        rows = kept.select([DT_OF, CHANGE]).to_pandas()
        of = {
            str(day): content_digest(kept.take(pa.array(at))) for day, at in sorted(rows.groupby(DT_OF).indices.items())
        }
        late = int((rows[CHANGE] == LATE).sum())
        self._index.changes[known] = StoredChanges(rows=len(kept), late=late, of=of)

    def _write_labels(self) -> None:
        files = self._index.partitions("labels")
        for day in days_in(files.folder, self._holds):
            table, name = files.table(day), day.isoformat()
            gone = self._subject.of_table(table)
            if not gone.any():
                continue
            self.labels[name] = int(gone.sum())
            self._note_corrected("labels", name, table, gone)
            kept = canonical(kept_rows(table, gone).cast(files.schema(day).remove_metadata()))
            self._write("labels", day, kept, kept_rows(table, gone))
            if len(kept):
                of = self._index.labels[name].of
                self._index.labels[name] = StoredDay(rows=len(kept), digest=content_digest(kept), of=of)
            else:
                del self._index.labels[name]

    def _write(self, kind: str, day: date, kept: pa.Table, expected: pa.Table) -> None:
        files = self._index.partitions(kind)
        if not len(kept):
            files.remove([day])
            return
        files.write(day, kept)
        found = files.table(day)
        check_equal(f"{files.folder} of {day}", expected.select(found.column_names), found)

    def _forget_undated(self, rows: pa.Table) -> None:
        """Forget the ids of rows without a date; of equal ones all go."""
        product = self._subject.product
        frame = rows.to_pandas(integer_object_nulls=True)
        undated = frame[parse_time(frame[product.time]).isna()]
        if self._index.undated and len(undated):
            gone = {*content_of(undated_row_ids(undated, product))}
            self._index.undated = {each for each in self._index.undated if each.partition("#")[0] not in gone}

    def _note_corrected(self, kind: Table, day: str, table: pa.Table, gone: np.ndarray) -> None:
        ids = raw_row_ids(table.to_pandas(integer_object_nulls=True))
        self.corrected |= {(kind, day, each) for each, is_gone in zip(ids, gone, strict=True) if is_gone}
