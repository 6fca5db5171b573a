"""Give rows the events that another source has of them: a column of kind events with `from` and `by`.

That source is read whole, up to the night's as_of, and held in memory as one text per event; the rows come in pieces as
ever. A row gets the events that were known on its own date, the newest last: those up to that date, less
predict.lead_days, and of a row with a time of the day those up to that time. Where they hold the target's own past,
these are known target.delay_days later.
"""

import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from model.features.histories import cell_of, fragment_of
from model.features.kinds import CATEGORY, KINDS, TIME
from tasks.params import UNREADABLE_COLUMNS, EventList, Product, Source
from tasks.rows.casting import as_text, cast_column, parse_time
from tasks.runtime.errors import UserError
from tasks.sources.formats.dialect import number_form, times_as_declared, without_words
from tasks.sources.formats.pieces import Wanted, digest_of

_DAY_SECONDS = 86_400


def place_of(product: Product, column: str) -> str:
    """Return where the source of a column's events is declared."""
    return f"params.yaml: products.{product.name}.sources.{product.events[column].source}"


def wanted_of(product: Product, column: str) -> tuple[Source, dict[str, str], Wanted]:
    """Return the source of a column's events, the kinds of what is read of it, and that by the source's own names."""
    listed = product.events[column]
    assert listed.source is not None
    assert listed.by is not None
    source = product.sources[listed.source]
    kinds = {listed.by: CATEGORY, listed.time: TIME, **listed.fields}
    return source, kinds, Wanted(declared=[source.names.get(name, name) for name in kinds])


class EventSource:
    """The events of a source of their own, by the column that rows and events have in common."""

    def __init__(self, product: Product, column: str, as_of: date, frames: Iterator[pd.DataFrame]) -> None:
        """Take all events that happened up to `as_of`."""
        self._product, self._column, self._place = product, column, place_of(product, column)
        self._listed: EventList = product.events[column]
        self._source, self._kinds, _ = wanted_of(product, column)
        self._n_rows = self._n_found = 0
        parts = [self._read(frame) for frame in frames]
        events = pd.concat(parts, ignore_index=True) if parts else self._read(pd.DataFrame(columns=[*self._kinds]))
        by, time = str(self._listed.by), self._listed.time
        is_usable = events[by].notna() & events[time].notna()
        if n_unusable := int((~is_usable).sum()):
            print(
                f"{self._place}: {n_unusable:,} rows lack {by} or {time}, and are no event", file=sys.stderr, flush=True
            )
        events = events[is_usable & (events[time] < np.datetime64(as_of + timedelta(days=1)))]
        events = events.sort_values([by, time], kind="stable", ignore_index=True)
        self._codes, keys = pd.factorize(events[by])
        self._keys = pd.Index(keys)
        self._seconds = events[time].to_numpy("datetime64[s]").astype(np.int64)
        self._fragments = _fragments(events, time, list(self._listed.fields))

    @property
    def digest(self) -> bytes:
        """Return what identifies all events."""
        keys = self._keys.take(self._codes).tolist()
        return digest_of("\n".join(keys).encode(), "\n".join(self._fragments).encode()).encode()

    def add_to(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows with their events; a row without a date has none."""
        at = parse_time(rows[self._product.time])
        code = self._keys.get_indexer(pd.Index(_whole(rows[str(self._listed.by)])))
        last = at.fillna(pd.Timestamp(0)).to_numpy("datetime64[s]").astype(np.int64)
        of_day = last // _DAY_SECONDS * _DAY_SECONDS
        before = self._product.events_end_days(self._listed)
        until = np.where((last > of_day) & (before == 0), last, of_day + (1 - before) * _DAY_SECONDS - 1)
        begins, ends = np.searchsorted(self._codes, code), self._ends(code, until)
        begins = np.maximum(begins, ends - self._listed.max_events)
        cells = [
            None if moment is pd.NaT else cell_of(moment, self._fragments[begin:end])
            for moment, begin, end in zip(at.to_list(), begins, ends, strict=True)
        ]
        self._n_rows += len(rows)
        self._n_found += int((ends > begins).sum())
        return rows.assign(**{self._column: pd.Series(cells, rows.index, dtype="str")})

    def check(self) -> None:
        """Raise UserError where there are events and none is of any row: then their keys are written otherwise."""
        if len(self._fragments) and self._n_rows and not self._n_found:
            raise UserError(
                f"{self._place}: events must have the {self._listed.by} of rows, and none of {len(self._fragments):,} "
                f"has that of one of {self._n_rows:,} rows; is it written alike in both sources, or called otherwise "
                "in this one (names)?"
            )

    def _ends(self, code: np.ndarray, until: np.ndarray) -> np.ndarray:
        """Return where the events of each row end: after the last of its key that is not later. Shapes: int64 [n]."""
        if not len(self._codes):
            return np.zeros(len(code), np.int64)
        first = self._seconds.min() - 1
        span = int(self._seconds.max() - first) + 1
        return np.searchsorted(
            self._codes * span + (self._seconds - first), code * span + (until - first).clip(0, span - 1), "right"
        )

    def _read(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a piece of the source with typed columns under the names that the entry has for them."""
        names = {own: name for name, own in self._source.names.items() if name in self._kinds}
        frame = frame.rename(columns=names)
        lacking = [self._source.names.get(name, name) for name in self._kinds if name not in frame]
        if lacking:
            raise UserError(
                f"{self._place} must deliver every declared column, and lacks {', '.join(lacking)}; it has "
                f"{', '.join(map(str, frame.columns))}; say under names what a column is called there"
            )
        if UNREADABLE_COLUMNS[0] in frame:
            frame = frame[frame[UNREADABLE_COLUMNS[0]].isna()]
        typed = pd.DataFrame(index=frame.index)
        for name, kind in self._kinds.items():
            form, cells = self._source.form_of(name), frame[name]
            if form.missing:
                cells = without_words(cells, form.missing)
            if kind == TIME:
                cells = times_as_declared(cells, form.time_format, self._product.time_zone)
            elif KINDS[kind].cells == "float64" and (form.decimal == "," or form.thousands):
                cells = cells.map(number_form(form), na_action="ignore")
            typed[name] = _whole(cells) if name == self._listed.by else self._cast(cells, name, kind)
        return typed

    def _cast(self, cells: pd.Series, name: str, kind: str) -> pd.Series:
        cast, misfits = cast_column(cells, kind)
        if misfits.any() and kind != TIME:  # a row without a time is counted as a whole
            n = int(misfits.sum())
            print(f"{self._place}: {n:,} cells of {name} are no {kind}, and are missing", file=sys.stderr, flush=True)
        return cast


def _fragments(events: pd.DataFrame, time: str, fields: list[str]) -> list[str]:
    """Return each event as a stored cell has it."""
    columns = [events[name].astype(object).where(events[name].notna(), None).to_list() for name in fields]
    moments: list[datetime] = [each.to_pydatetime() for each in events[time]]
    return [
        fragment_of(moment, dict(zip(fields, values, strict=True)))
        for moment, values in zip(moments, zip(*columns, strict=True) if fields else [()] * len(moments), strict=True)
    ]


def _whole(cells: pd.Series) -> pd.Series:
    """Return keys as text; a whole number is one with or without .0, which a gap in a column makes of it."""
    return as_text(cells).str.replace(r"^(-?(?:0|[1-9][0-9]*))\.0+$", r"\1", regex=True)
