"""Lay people's corrections over raw rows and labels.

Raw data stays as it was delivered. `validate` reads it with the corrected cells and judges the rows again, so that each
is counted once, where it arrived.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.params import RAW_ROW, UNREADABLE_COLUMNS
from tasks.rows.casting import as_text
from tasks.rows.decisions import FOLDER, Corrections
from tasks.rows.keys import row_ids
from tasks.rows.partitions import Partitions
from tasks.rows.raw_archive import CHANGE, SLOT, WITHDRAWN
from tasks.rows.versions import KNOWN, DaysByYear, History
from tasks.runtime.errors import UserError
from tasks.runtime.fingerprints import json_sha256
from tasks.runtime.paths import Table


@dataclass(frozen=True)
class Delivered:
    """Raw rows, or raw labels, as known on a date, with the corrections that are known on it."""

    table: Table
    """Which of the two."""
    raw: Path
    """data/raw/<product>."""
    history: History
    """The versions of rows that are known."""
    corrections: Corrections = field(default_factory=dict)
    """The corrected cells."""

    def days(self, last: date) -> DaysByYear:
        """Return the dates up to `last`: event dates of rows, for labels those on which they became known."""
        return self.history.event_days(last) if self.table == "rows" else self.history.label_days(last)

    def inputs_of(self, year: str, last: date) -> str | None:
        """Return what identifies all rows of a year's dates with their corrections, without reading the year.

        None for one that is not over on `last`, or of which more is stored than is known.
        """
        stored = self.history.inputs_of(self.table, year) if f"{year}-12-31" <= last.isoformat() else None
        if stored is None:
            return None
        corrected = {day: each for (table, day), each in self.corrections.items() if table == self.table}
        return json_sha256([stored, {day: each for day, each in sorted(corrected.items()) if day.startswith(year)}])

    def digest(self, day: date) -> str:
        """Return what identifies a date's rows with their corrections: with others it is another one."""
        found = self.history.digest(day) if self.table == "rows" else self.history.label_digest(day)
        corrected = self.corrections.get((self.table, day.isoformat()))
        return json_sha256([found, corrected]) if corrected else found

    def n_rows(self, day: date) -> int:
        """Return about how many rows a date has: those that came on time."""
        return self.history.n_rows(day) if self.table == "rows" else self.history.n_labels(day)

    def batches(self, days: Sequence[date], n_rows: int) -> Iterator[list[date]]:
        """Yield dates in order, as many together as have at most so many rows, and one at least."""
        batch: list[date] = []
        n_batch = 0
        for day in days:
            n_day = self.n_rows(day)
            if batch and n_batch + n_day > n_rows:
                yield batch
                batch, n_batch = [], 0
            batch.append(day)
            n_batch += n_day
        if batch:
            yield batch

    def read(self, days: Sequence[date], columns: list[str]) -> pd.DataFrame:
        """Return some columns of dates with the corrected cells; RAW_ROW holds the ids of the corrected rows.

        Raises UserError for a correction of a row that is not stored.
        """
        read = self.history.read if self.table == "rows" else self._stored.read
        found = read(days, columns).assign(**{RAW_ROW: None})
        corrected = [day for day in days if (self.table, day.isoformat()) in self.corrections]
        if corrected:
            found = found.astype(dict.fromkeys(columns, object))
        for day in corrected:
            self._correct(found, day, columns)
        return found

    def row_ids_of(self, days: Sequence[date], wanted: Sequence[np.ndarray]) -> list[str]:
        """Return the ids of some rows of dates, those of one date after the other; see `row_ids`."""
        found = {day: list[str]() for day in days}
        wanted_of = {day: rows for day, rows in zip(days, wanted, strict=True) if rows.any()}
        as_stored = [day for day in wanted_of if self.table == "labels" or not self.history.has_versions(day)]
        for days_of_rows, table in self._chosen(as_stored, wanted_of):
            rows = table.to_pandas(integer_object_nulls=True)
            ids = row_ids(rows, of=days_of_rows, from_last=True)
            for day, each in zip(days_of_rows, ids, strict=True):
                found[day].append(each)
        others = wanted_of.keys() - {*as_stored}
        found |= {day: self.row_ids(day, wanted_of[day]) for day in others}
        return [each for day in days for each in found[day]]

    def _chosen(self, days: Sequence[date], wanted: Mapping[date, np.ndarray]) -> Iterator[tuple[list[date], pa.Table]]:
        """Yield the wanted rows of dates with the date of each: together those that have the same columns and types."""
        by_schema: dict[bytes, list[tuple[list[date], pa.Table]]] = {}
        for alike, n_rows, table in self._stored.alike(days):
            chosen = np.concatenate([wanted[day] for day in alike])
            number = np.repeat(np.arange(len(alike)), n_rows)[chosen]
            part = [alike[place] for place in number], table.filter(pa.array(chosen))
            by_schema.setdefault(table.schema.serialize().to_pybytes(), []).append(part)
        for parts in by_schema.values():
            yield [day for dates, _ in parts for day in dates], pa.concat_tables([table for _, table in parts])

    def row_ids(self, day: date, wanted: np.ndarray) -> list[str]:
        """Return the ids of some rows of a date, by which corrections name them. Shapes: bool [n], n the day's rows.

        They depend on what was stored alone, which never changes, and not on the columns that are declared today. Equal
        rows are numbered from the last, so that the ids of a date's last rows need none of the earlier ones.
        """
        if self.table == "labels":
            return raw_row_ids(self._stored.read([day]).drop(columns="dt")[wanted])
        rows = self.history.slots([day])
        rows = rows[rows[CHANGE] != WITHDRAWN][wanted]
        came_on_time = rows[CHANGE].isna().to_numpy()
        cells = rows.drop(columns=["dt", SLOT, CHANGE, KNOWN])
        if came_on_time.all():
            return raw_row_ids(cells)
        ids = np.empty(len(rows), object)
        # A change may have columns that the rows which came on time were stored without.
        stored = self._stored.table(day).column_names if came_on_time.any() else []
        ids[came_on_time] = raw_row_ids(cells.loc[came_on_time, stored])
        ids[~came_on_time] = changed_row_ids(cells[~came_on_time])
        return list(ids)

    @property
    def _stored(self) -> Partitions:
        return Partitions(self.raw / self.table)

    def _correct(self, found: pd.DataFrame, day: date, columns: list[str]) -> None:
        places = found.index[found["dt"] == day.isoformat()]
        place_of = dict(zip(self.row_ids(day, np.ones(len(places), bool)), places, strict=True))
        for row, cells in self.corrections[self.table, day.isoformat()].items():
            if row not in place_of:
                raise UserError(
                    f"{FOLDER}/*/dt={day.isoformat()}.jsonl: a correction must be of a row that is stored, and "
                    f"{row} of {self.table} is none; delete its line"
                )
            for name in cells.keys() & set(columns):  # a corrected column may be declared no longer
                found.loc[place_of[row], name] = cells[name]
            found.loc[place_of[row], RAW_ROW] = row
            found.loc[place_of[row], [name for name in UNREADABLE_COLUMNS if name in columns]] = None


def raw_row_ids(rows: pd.DataFrame) -> list[str]:
    """Return the ids of rows that came on time: see `Delivered.row_ids`."""
    return row_ids(rows, from_last=True).tolist()


def changed_row_ids(rows: pd.DataFrame) -> list[str]:
    """Return the ids of versions of rows beside the plan, which do not depend on the columns of later versions."""
    texts = rows.apply(as_text).astype(object).where(rows.notna(), None)
    named = [{name: cell for name, cell in row.items() if cell is not None} for row in texts.to_dict("records")]
    lines = [json.dumps(cells, sort_keys=True) for cells in named]
    ids = pd.Series([f"c{hashlib.blake2b(line.encode(), digest_size=8).hexdigest()}" for line in lines], dtype="str")
    number = ids.groupby(ids).cumcount(ascending=False).astype("str")
    return ids.where(number == "0", ids + "#" + number).tolist()
