"""Bring the pieces of a source into the shape of raw data: personal data out, rows named and dated, held by month."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from tasks.params import Product
from tasks.rows.arrivals import Arrivals
from tasks.rows.casting import has_label, parse_time
from tasks.rows.intake.erased import Erased
from tasks.rows.intake.seen import SeenPiece
from tasks.rows.intake.spill import Spill
from tasks.rows.intake.window import Window
from tasks.rows.personal_data import Salts, no_salts, protect

LABELLED = "spill_labelled"
"""The column that says which rows of a delivery have a label."""
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(kw_only=True)
class Delivered:
    """What of a source was read: rows up to the scored day by month, and counts of the others."""

    product: Product
    window: Window
    arrivals: Arrivals
    rows: Spill
    erased: Erased
    """What people had erased: its rows are dropped."""
    salts: Salts = no_salts
    """Where the salts of personal data are kept: rows of whom one was forgotten are dropped."""
    undated: list[pd.DataFrame] = field(default_factory=list)
    """Rows without an event date."""
    days: set[date] = field(default_factory=set)
    """The event dates that have rows."""
    n_rows: int = 0
    n_later: int = 0
    n_seen_before: int = 0
    n_rewritten: int = 0
    n_erased: int = 0
    oldest_later: date | None = None
    pieces: dict[str, SeenPiece] = field(default_factory=dict)
    """The pieces, as the next run knows them."""
    unread: list[tuple[str, str]] = field(default_factory=list)
    """First and last event date of pieces that were not read."""

    def skip(self, name: str, piece: SeenPiece) -> None:
        """Note a piece that is as an earlier run took it."""
        self.pieces[name] = piece
        self.n_seen_before += piece.n_rows
        self.unread += [piece.days] if piece.days else []

    def add(self, name: str, digest: str, rows: pd.DataFrame, evidence: dict[str, int]) -> None:
        """Add the rows of a piece that was read."""
        n_delivered = len(rows)
        rows = protect(rows, self.product, self.salts).reset_index(drop=True)
        rows, n_rewritten = self.arrivals.with_stored_keys(rows)
        self.n_rewritten = self.n_rewritten + n_rewritten
        rows = rows[~self.erased.among(rows)].reset_index(drop=True)
        self.n_erased += n_delivered - len(rows)
        rows = self.arrivals.with_dates(rows)
        times = parse_time(rows[self.product.time])
        is_dated = times.notna().to_numpy()
        days = times.to_numpy().astype("datetime64[D]").astype(np.int64)
        is_later = is_dated & (days > _number(self.window.last))
        is_due = is_dated & ~is_later
        labelled = has_label(rows[self.product.target.name])
        rows = rows.assign(**{LABELLED: labelled})
        self.n_rows += n_delivered
        self.n_later += int(is_later.sum())
        if is_later.any():
            oldest = day_of(int(days[is_later].min()))
            self.oldest_later = min(self.oldest_later or oldest, oldest)
        if not is_due.all():
            self.undated += [rows[~is_dated].drop(columns=LABELLED)] if not is_dated.all() else []
            rows, days, labelled = rows[is_due], days[is_due], labelled[is_due]
        found = np.unique(days)
        self.days |= {day_of(int(day)) for day in found}
        self.rows.add(rows, days)
        if digest:
            last_labelled = days[labelled.to_numpy()].max(initial=np.iinfo(np.int64).min)
            not_due = last_labelled > _number(self.window.as_of) - self.product.target.delay_days
            self.pieces[name] = SeenPiece(
                digest=digest,
                n_rows=n_delivered,
                days=(day_of(int(found[0])).isoformat(), day_of(int(found[-1])).isoformat()) if len(found) else None,
                is_whole=bool(is_due.all() and not not_due),
                evidence=evidence,
            )

    def is_all_of(self, day: date) -> bool:
        """Return whether every piece that may have rows of a date was read."""
        return not any(first <= day.isoformat() <= last for first, last in self.unread)

    def undated_rows(self) -> pd.DataFrame:
        """Return the rows without an event date."""
        return pd.concat(self.undated, ignore_index=True) if self.undated else pd.DataFrame()


def day_of(number: int) -> date:
    """Return the date of a number of days since 1970."""
    return date.fromordinal(number + _EPOCH)


def _number(day: date) -> int:
    return day.toordinal() - _EPOCH


def days_of(numbers: Iterable[int]) -> list[date]:
    """Return the dates of numbers of days since 1970."""
    return [day_of(number) for number in numbers]
