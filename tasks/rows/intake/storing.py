"""Store what a source delivered as it became known, and commit it: new days, labels, and versions beside the plan.

Nothing that is stored is rewritten. The files that grow are those of the run's own as_of, when it is run once more. The
index is written last, so that a run that was killed has stored nothing: the next one puts the files right.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.params import Product
from tasks.rows.arrivals import with_row_ids
from tasks.rows.day_writer import DayWriter
from tasks.rows.intake.beside import Beside
from tasks.rows.intake.delivered import LABELLED, Delivered, day_of
from tasks.rows.intake.latest import latest_versions
from tasks.rows.intake.report import IngestReport, LeftOfDay, TakenOfDay
from tasks.rows.intake.seen import Seen
from tasks.rows.intake.spill import DAY, ORDER
from tasks.rows.intake.window import Window
from tasks.rows.raw_archive import RawIndex, StoredDay, canonical, content_digest, storable, undated_row_ids
from tasks.rows.versions import joined
from tasks.runtime.errors import UserError
from tasks.runtime.paths import TABLES

Write = Callable[[date, pa.Table], None]
ROWS_COMPARED = 150_000
"""So many rows of stored days are compared at once."""


class Storing:
    """One run's work on data/raw/<product>."""

    def __init__(
        self, product: Product, window: Window, index: RawIndex, delivered: Delivered, refetched: dict[str, str]
    ) -> None:
        """Take a delivery that was read whole, and the dates that a person has fetched again, with reasons."""
        self.product, self.window, self.index, self.delivered = product, window, index, delivered
        self.refetched = refetched
        self.beside = Beside(product, window, index, delivered, refetched)
        self.stored_before = index.copy()
        self.new_days = sorted(day for day in delivered.days if self._is_new(day))
        self.counts: Counter[str] = Counter()
        rows, labels = (index.partitions(kind) for kind in TABLES)
        newest_row = date.fromisoformat(index.rows.newest) if index.rows.newest else date.min
        self._rows = DayWriter(rows, max([newest_row, *self.new_days[-1:]]))
        self._labels = DayWriter(labels, None)
        self.closed: list[pd.DataFrame] = []
        """Rows of stored dates that are to be compared."""
        self.labels_compared: list[pd.DataFrame] = []
        self.labels_of_today: list[pd.DataFrame] = []
        """Labels that came on time on this as_of."""

    def store(self, seen: Seen) -> IngestReport:
        """Store the delivery and commit it. Raises UserError where nothing is stored and it has no row that is due."""
        self.raise_if_nothing()
        self.index.put_right()
        undated, n_waiting = self._undated()
        for _, days in self.delivered.rows.months():
            for number, tables in days.items():
                day = day_of(number)
                if self._is_new(day):
                    self._store_day(day, tables, undated if day == self.new_days[-1] else None)
                elif not self._is_as_stored(day, tables):
                    rows = self._frame(tables)
                    self.closed.append(rows.assign(dt=day.isoformat()))
                    self._store_labels(day, rows)
                if sum(map(len, [*self.closed, *self.labels_compared])) >= ROWS_COMPARED:
                    self._compare()
        self._compare()
        self._rows.flush()
        self._labels.flush()
        self.beside.compare_absent()
        self.beside.write_versions()
        self._write_labels_of_today()
        return self._commit(seen, n_waiting)

    def _is_new(self, day: date) -> bool:
        return self.window.is_new(day) and not self.stored_before.has_rows_of(day.isoformat())

    def raise_if_nothing(self) -> None:
        """Raise UserError where nothing is stored, and the delivery has no row that is due."""
        last = self.window.last.isoformat()
        if not self.delivered.days and not self.stored_before.has_rows_until(last):
            raise UserError(_nothing_to_store(self.delivered, self.product, last))

    def _undated(self) -> tuple[pd.DataFrame, int]:
        """Return the rows without an event date that are not stored yet, and how many of them wait for a new date.

        They are stored with the newest new date: a date of undated rows alone would be closed before its own rows come.
        """
        rows = self.delivered.undated_rows()
        if rows.empty:
            return rows, 0
        rows = with_row_ids(rows, self.product)
        ids = undated_row_ids(rows, self.product)
        is_new = ~ids.isin(self.index.undated)
        if not self.new_days:
            return rows.head(0), int(is_new.sum())
        self.index.undated |= {*ids[is_new]}
        return rows[is_new], 0

    def _frame(self, tables: list[pa.Table]) -> pd.DataFrame:
        """Return the rows of one date in order of delivery, each version that stands, named."""
        frames = [table.to_pandas(integer_object_nulls=True) for table in tables]
        rows = joined(frames)
        rows = rows.sort_values(ORDER, kind="stable", ignore_index=True).drop(columns=[DAY, ORDER])
        rows = with_row_ids(rows, self.product)
        latest = latest_versions(rows, self.product)
        self.counts["rows_superseded"] += len(rows) - len(latest)
        return latest

    def _is_as_stored(self, day: date, tables: list[pa.Table]) -> bool:
        """Return whether the rows and labels of a stored date have the very cells and types that are stored.

        Most dates of a piece that is read once more are so, and need neither keys nor a look into their files.
        """
        name, known = day.isoformat(), self.window.label_known(day)
        stored, superseded = self.index.rows.get(name), self.counts["rows_superseded"]
        if stored is None or self.beside.has_versions(day):
            return False
        table = self._table(tables)
        is_same = content_digest(self._rows_of(table)) == stored.digest
        if is_same and known <= self.window.as_of:
            labels = self._labels_of(table)
            expected = StoredDay(rows=len(labels), digest=content_digest(labels), of=(name, name))
            wanted = [expected] if len(labels) else []
            is_same = not self.window.label_is_new(day) and self.beside.labels_of(day) == wanted
        if not is_same:
            self.counts["rows_superseded"] = superseded
        return is_same

    def _table(self, tables: list[pa.Table], undated: pd.DataFrame | None = None) -> pa.Table:
        """Return the rows of one date as they are stored, with their labels."""
        if len(tables) == 1 and self.product.has_key and self.product.source.latest_by is None and undated is None:
            return tables[0]
        rows = joined([self._frame(tables), *([] if undated is None else [undated.assign(**{LABELLED: False})])])
        return pa.Table.from_pandas(rows.apply(storable), preserve_index=False)

    def _rows_of(self, table: pa.Table) -> pa.Table:
        return canonical(table.select(_row_columns(table.column_names, self.product)))

    def _labels_of(self, table: pa.Table) -> pa.Table:
        """Return the labels of a date as they are stored where they came on time."""
        names = [*self.product.key, self.product.target.name]
        return canonical(pc.filter(table.select(names), table[LABELLED].combine_chunks().cast(pa.bool_())))

    def _store_day(self, day: date, tables: list[pa.Table], undated: pd.DataFrame | None) -> None:
        product, name = self.product, day.isoformat()
        table = self._table(tables, undated)
        stored = self._rows_of(table)
        self._rows.write(day, stored)
        self.index.rows[name] = StoredDay(rows=len(stored), digest=content_digest(stored))
        self.counts["rows_new"] += len(stored)
        names = [*product.key, product.target.name, LABELLED]
        known = self.window.label_known(day)
        if known < self.window.as_of and self._are_labels_new(day) and all(map(_is_flat, table.select(names).columns)):
            self._write_labels(known, day, self._labels_of(table))
        else:
            self._store_labels(day, table.select(names).to_pandas(integer_object_nulls=True))

    def _are_labels_new(self, day: date) -> bool:
        return self.window.label_is_new(day) and not self.beside.may_have_labels(day)

    def _store_labels(self, day: date, rows: pd.DataFrame) -> None:
        """Store the labels of a date that came on time; those of a date that may have some are compared with them."""
        known, names = self.window.label_known(day), [*self.product.key, self.product.target.name]
        if not self._are_labels_new(day):
            if known <= self.window.as_of:
                self.labels_compared.append(rows[[*names, LABELLED]].assign(dt=day.isoformat()))
            return
        labels = rows.loc[rows[LABELLED].astype(bool), names]
        if known == self.window.as_of and len(labels):  # others become known on it, too
            self.counts["labels_new"] += len(labels)
            self.labels_of_today.append(labels.assign(dt=day.isoformat()))
        else:
            self._write_labels(known, day, _as_table(labels))

    def _write_labels(self, known: date, day: date, labels: pa.Table) -> None:
        """Write the labels of a date that came on time, if it has any."""
        self.counts["labels_new"] += len(labels)
        if len(labels):
            self._note_labels(self._labels.write, known, labels, (day.isoformat(), day.isoformat()))

    def _compare(self) -> None:
        if self.labels_compared:
            self._labels.flush()  # they are compared with what is stored
            self.beside.compare_labels(joined(self.labels_compared))
        if self.closed:
            self.beside.compare_rows(joined(self.closed))
        self.closed, self.labels_compared = [], []

    def _write_labels_of_today(self) -> None:
        """Write the labels that became known on this as_of, behind those that an earlier run of it has stored."""
        known, labels = self.window.as_of.isoformat(), [*self.labels_of_today, *self.beside.labels]
        if not labels:
            return
        rows = joined(labels)
        days = [*rows["dt"].unique(), *(self.index.labels[known].of or () if known in self.index.labels else ())]
        if known in self.index.labels:
            rows = joined([self.index.read("labels", [known]), rows])
        write = self.index.partitions("labels").write
        self._note_labels(write, self.window.as_of, _as_table(rows.drop(columns="dt")), (min(days), max(days)))

    def _note_labels(self, write: Write, known: date, table: pa.Table, of: tuple[str, str]) -> None:
        write(known, table)
        self.index.labels[known.isoformat()] = StoredDay(rows=len(table), digest=content_digest(table), of=of)

    def _commit(self, seen: Seen, n_waiting: int) -> IngestReport:
        index, delivered, beside = self.index, self.delivered, self.beside
        index.refetched |= {day: why for day, why in self.refetched.items() if day not in beside.unsettled}
        left = beside.left_and_not_told()
        index.seen = Seen(pieces=delivered.pieces, declared=seen.declared).save(index.folder)
        index.compact()
        index.note_run(self.window.as_of)
        index.save()
        waiting = {"rows_waiting_without_a_date": n_waiting, "rows_later_than_the_night": delivered.n_later}
        waiting["rows_erased"] = delivered.n_erased
        counts: Mapping[str, Any] = {**self.counts, **beside.counts, **waiting}
        others = sum(n for name, n in counts.items() if name.startswith("rows_") and name != "rows_withdrawn")
        return IngestReport(
            as_of=self.window.as_of.isoformat(),
            rows_delivered=delivered.n_rows,
            rows_of_stored_days=delivered.n_rows - others,
            rows_seen_before=delivered.n_seen_before,
            days_new=[day.isoformat() for day in self.new_days],
            days_refetched=self.refetched,
            rows_total=index.total("rows"),
            labels_total=index.total("labels"),
            taken={day: TakenOfDay(**by_kind) for day, by_kind in sorted(beside.taken.items())},
            left={day: LeftOfDay(**by_kind) for day, by_kind in sorted(left.items())},
            keys_written_otherwise=delivered.n_rewritten,
            **counts,
        )


def _as_table(labels: pd.DataFrame) -> pa.Table:
    return canonical(pa.Table.from_pandas(labels.apply(storable), preserve_index=False))


def _is_flat(column: pa.ChunkedArray) -> bool:
    """Return whether cells are single values, which are stored alike whether pandas has seen them or not."""
    kind = column.type
    return bool(pa.types.is_large_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _row_columns(names: list[str], product: Product) -> list[str]:
    """Return the columns with which a row is stored."""
    added = {product.target.name, LABELLED, DAY, ORDER}
    if product.source.latest_by not in product.stored_columns:
        added.add(str(product.source.latest_by))
    return [name for name in names if name not in added]


def _nothing_to_store(delivered: Delivered, product: Product, last: str) -> str:
    """Return the message where a first delivery has no row up to a day: none at all, later ones only, or no dates."""
    source = f"params.yaml: products.{product.name}.source"
    undated = delivered.undated_rows()
    if len(undated) and not delivered.n_later:
        n, n_given = len(undated), int(undated[product.time].notna().sum())
        return (
            f"{source}: {product.time} must be a date, and no row has one: of {n:,} rows {n_given / n:.0%} have a cell "
            f"there that is none, and {(n - n_given) / n:.0%} have no cell; dates are written like 2013-06-30: "
            'mend the source, or set source.time_format to how it writes them, such as "%d.%m.%Y", or "s" or "ms" for '
            "numbers of those since 1970"
        )
    later = f": its oldest row is of {delivered.oldest_later}" if delivered.oldest_later else ""
    return f"{source} knows no row up to {last}; check as_of and the source{later}"
