"""Check the days of rows, or of labels, that are new or changed: types, keys, duplicates and expectations.

What was found of the other days is in the ledger, and their rows are not read. Days are taken in order, as whether one
is held depends on those before it.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.params import RAW_ROW, Expectation
from tasks.quality.checked_table import HELD, CheckedTable, Outcome
from tasks.quality.day_summaries import sum_up_days
from tasks.quality.duplicates.key_index import is_among, is_repeated
from tasks.quality.duplicates.repeats import Repeats
from tasks.quality.expectations import add_findings, evaluate_expectations
from tasks.quality.judging import ONE_DAY, DayJudge, figures_beyond
from tasks.quality.ledger import JudgedDay, Ledger
from tasks.quality.raw_tables import RawTable
from tasks.quality.tallies import Days, evaluate_by_day, sum_up
from tasks.rows.day_writer import DayWriter, in_order
from tasks.rows.keys import key_digests, key_text
from tasks.rows.partitions import Partitions
from tasks.runtime.fingerprints import json_sha256

ROWS_CHECKED_AT_ONCE = 250_000
"""Days are checked together up to so many rows: each batch costs Great Expectations about 0.3 s, and memory."""


@dataclass
class Check:
    """The check of all rows, or of all labels, of one product."""

    table: RawTable
    expectations: Sequence[Expectation]
    ledger: Ledger
    """What was found so far; what is found now is added."""
    valid: Partitions
    quarantine: Partitions
    """What becomes of the rows: those of days that are not judged now lie in them as they were."""
    last: date
    """Days up to this one are checked."""
    first_whole: date
    """From this day on days are judged by the expectations about a whole table."""
    repeats: Repeats
    """Which rows repeat a key."""
    judge: DayJudge | None = None
    """Holds back rows of days that differ in kind; None for labels."""

    def __post_init__(self) -> None:
        self.by_row = [each for each in self.expectations if each.is_row_by_row]
        self.whole = [each for each in self.expectations if not each.is_row_by_row]
        self.kind = self.table.delivered.table
        self.found = self.ledger.days[self.kind]
        self.days = self.table.delivered.days(self.last)

    def run(self, distrusted: Iterable[str] = ()) -> None:
        """Judge the days that are new or changed, or in `distrusted`: ledger, rows and keys follow."""
        changed, gone = self._new_and_gone(distrusted)
        if self.judge:
            changed |= self.judge.not_summed_up(self.ledger) if self.ledger.compared_since else set()
        queue = sorted(changed | {day for day in self.repeats.update(sorted(changed), gone) if day in self.days})
        for day in gone:
            self.ledger.forget(self.kind, day.isoformat())
        self.valid.remove(gone)
        self.quarantine.remove(gone)
        start = min([self.last, *queue[:1], *gone[:1]])
        if self.judge:
            start = min(start, self.judge.first_changed(self.ledger))
            self.judge.start(start, self.ledger)
        with in_order(self.valid, self.last) as valid, in_order(self.quarantine, self.last) as quarantine:
            self._writers = valid, quarantine
            for batch in self._batches(queue):
                self._go_on(start, batch[0])
                table = self._judge(batch)
                self._go_on(batch[0], batch[-1] + ONE_DAY, {*batch})
                self._write(table)
                start = batch[-1] + ONE_DAY
            self._go_on(start, self.last + ONE_DAY)

    def _new_and_gone(self, distrusted: Iterable[str]) -> tuple[set[date], list[date]]:
        """Return the days whose rows are not those that were judged, and those that have none any more.

        A year of which all that is stored is as it was when its days were judged is not looked into.
        """
        changed, gone, inputs = set[date](), list[date](), dict[str, str]()
        for year in sorted({*self.days.years, *(month[:4] for month in self.found.months())}):
            identified = self.table.delivered.inputs_of(year, self.last)
            if identified:
                inputs[year] = identified
            if identified is None or self.ledger.inputs[self.kind].get(year) != identified:
                changed |= {day for day in self.days.of_year(year) if self._is_new(day)}
                gone += [day for day in map(date.fromisoformat, self.found.of_year(year)) if day not in self.days]
        self.ledger.inputs[self.kind] = inputs
        return changed | {day for day in map(date.fromisoformat, distrusted) if day in self.days}, gone

    def _is_new(self, day: date) -> bool:
        found = self.found.get(day.isoformat())
        return found is None or found.input != self._input(day)

    def _input(self, day: date) -> str:
        """Return what identifies the rows of a day that has some."""
        return self.table.delivered.digest(day)

    def _go_on(self, start: date, end: date, judged: Container[date] = ()) -> None:
        """Give the days from `start` until before `end` their verdicts.

        The rows of one that was not `judged` now are read where its verdict is another one.
        """
        for day in (start + timedelta(days=i) for i in range((end - start).days)):
            name, table = day.isoformat(), None
            found = self.found.get(name)
            if found and day not in judged and found.window != self._window(day):
                table = self._judge([day])
                found = self.found[name]
            held = self._held(day, found)
            if found and found.held != held:
                if day not in judged and table is None:
                    table = self._judge([day])
                self.ledger.note(self.kind, name, replace(self.found[name], held=held))
            if table is not None:
                self._write(table)

    def _held(self, day: date, found: JudgedDay | None) -> str | None:
        if not self.judge:
            return None
        verdict = self.judge.judge(day, found, self.ledger.summary(day.isoformat()) if found else None)
        return figures_beyond(verdict) if verdict and verdict.is_held else None

    def _batches(self, days: Sequence[date]) -> Iterator[list[date]]:
        """Yield days in order, as many together as ROWS_CHECKED_AT_ONCE admits.

        One that is judged together with days before it needs their verdicts first, and comes alone.
        """
        first_alone = self.first_whole if self.whole else date.max
        yield from self.table.delivered.batches([day for day in days if day < first_alone], ROWS_CHECKED_AT_ONCE)
        yield from ([day] for day in days if day >= first_alone)

    def _judge(self, days: Sequence[date]) -> CheckedTable:
        """Return the checked rows of days; what was found of each is in the ledger."""
        table = self.table.checked(days)
        by_day = Days(table.delivered["dt"], days)
        self._add_duplicates(table, by_day)
        findings, tallies = evaluate_by_day(table.typed, self.by_row, by_day)
        add_findings(table, findings)
        outcomes = self._judge_whole(table, days)
        found = sum_up(table, by_day, tallies, [self._input(day) for day in days])
        for day, each in zip(days, found, strict=True):
            noted = replace(each, window=self._window(day), whole=outcomes)
            self.ledger.note(self.kind, day.isoformat(), noted)
        if self.judge:
            for name, summary in sum_up_days(table, self.table.product, self.judge.compared_since).items():
                self.ledger.note_compared(name, summary)
        return table

    def _add_duplicates(self, table: CheckedTable, by_day: Days) -> None:
        known = [self.repeats.of(day) for day in by_day.days]
        if all(keys is not None and not len(keys) for keys in known):
            return
        keys, takes = key_digests(key_text(table.typed, self.table.product.key)), table.takes_key.to_numpy()
        is_duplicate = np.zeros(len(keys), bool)
        for rows, earlier in zip(by_day.slices, known, strict=True):
            taking = np.flatnonzero(takes[rows]) + rows.start
            is_duplicate[taking] = is_repeated(keys[taking])
            if earlier is not None and len(earlier):
                is_duplicate[taking] |= is_among(keys[taking], earlier)
        table.add_violation(pd.Series(is_duplicate), "+".join(self.table.product.key), "is a key already seen")

    def _judge_whole(self, table: CheckedTable, days: Sequence[date]) -> list[Outcome]:
        """Return what the expectations about a whole table say of a day, with those before it; its rows get reasons."""
        if not self.whole or days[-1] < self.first_whole:
            return []
        (day,) = days
        outcomes: dict[int, Outcome] = {}
        reasons = CheckedTable(table.delivered, table.typed)
        for window in {days_of(each) for each in self.whole}:
            places = [place for place, each in enumerate(self.whole) if days_of(each) == window]
            before = [each for each in self._days_in(day, window) if each != day]
            typed = pd.concat([self.table.checked(before).typed, table.typed]) if before else table.typed
            findings = evaluate_expectations(typed.reset_index(drop=True), [self.whole[place] for place in places])
            first = len(typed) - len(table.typed)
            add_findings(reasons, [replace(each, bad=each.bad[each.bad >= first] - first) for each in findings])
            outcomes |= {place: each.outcome for place, each in zip(places, findings, strict=True)}
        table.add_violations(reasons.reasons)
        return [outcomes[place] for place in range(len(self.whole))]

    def _window(self, day: date) -> str | None:
        """Return what identifies the rows that a day is judged with; None where it is judged by itself."""
        if not self.whole or day < self.first_whole:
            return None
        days = self._days_in(day, max(map(days_of, self.whole)))
        return json_sha256([[each.isoformat(), self._input(each)] for each in days])

    def _days_in(self, day: date, window: int) -> list[date]:
        """Return the days of a window that ends with a day, without those before it that are held."""
        found = []
        for each in (day - timedelta(days=i) for i in reversed(range(window))):
            judged = self.found.get(each.isoformat())
            if each in self.days and (each == day or (judged and judged.held is None)):
                found.append(each)
        return found

    def _write(self, table: CheckedTable) -> None:
        """Write each day's valid rows in order of key, so that no later stage depends on the order of arrival."""
        held = {name: found.held for name in table.delivered["dt"].unique() if (found := self.found[name]).held}
        for name, figures in held.items():
            table.add_violation((table.delivered["dt"] == name) & table.is_valid, HELD, figures)
        rows = table.typed[table.is_valid].sort_values(["dt", *self.table.product.key], ignore_index=True)
        valid, quarantine = self._writers
        _write_days(valid, rows, table.days)
        bad = table.delivered[~table.is_valid].assign(**{RAW_ROW: self._row_ids(table)[~table.is_valid]})
        # As text, because a column that holds both numbers and words has no other common type.
        kept = bad.astype("str").where(bad.notna(), None).assign(reasons=table.reasons[~table.is_valid])
        _write_days(quarantine, kept.astype("str"), table.days)

    def _row_ids(self, table: CheckedTable) -> pd.Series:
        """Return the ids of the rows in quarantine, by which corrections name them; None for other rows.

        Corrected rows are counted beside them: equal rows are numbered from the last, and of those after one in
        quarantine all are in quarantine or corrected.
        """
        known = table.delivered[RAW_ROW]
        wanted = (~table.is_valid | known.notna()).to_numpy()
        rows_of_days = Days(table.delivered["dt"], table.days).slices
        made = self.table.delivered.row_ids_of(table.days, [wanted[rows] for rows in rows_of_days])
        return known.where(known.notna(), pd.Series(made, known.index[wanted], dtype=object))


def _write_days(folder: DayWriter, rows: pd.DataFrame, days: Sequence[date]) -> None:
    """Write rows, which are in order of their date `dt`, in place of all that there was of the days."""
    by_day = Days(rows["dt"], days)
    stored = pa.Table.from_pandas(rows.drop(columns="dt"), preserve_index=False)
    empty = []
    for day, place in zip(days, by_day.slices, strict=True):
        if place.stop > place.start:
            folder.write(day, stored.slice(place.start, place.stop - place.start))
        else:
            empty.append(day)
    folder.remove(empty)


def days_of(expectation: Expectation) -> int:
    """Return the days that an expectation about a whole table is judged on together."""
    return expectation.window_days or 1
