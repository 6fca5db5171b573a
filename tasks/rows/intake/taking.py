"""Take a delivery, piece by piece: what is asked for, what need not be read again, and what is stored at the end."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from tasks.params import Product
from tasks.rows.arrivals import Arrivals
from tasks.rows.decisions import reason_for_anew, refetched_days
from tasks.rows.intake.delivered import Delivered
from tasks.rows.intake.erased import Erased
from tasks.rows.intake.report import IngestReport
from tasks.rows.intake.seen import Seen
from tasks.rows.intake.spill import Spill
from tasks.rows.intake.storing import Storing
from tasks.rows.intake.window import Window
from tasks.rows.personal_data import Salts, no_salts
from tasks.rows.raw_archive import RawIndex

SPILL = ".spill"
"""The folder in data/raw/<product> for what does not fit into memory while a delivery is read."""


SaltsOf = Callable[[RawIndex], Salts]
"""The salts of a product, given what is stored of it: nothing yet, and there may be none. Its number of salts follows
what the store has."""


class Taking:
    """One run's delivery; a context, at whose end nothing but data/raw/<product> is left of it."""

    def __init__(self, product: Product, as_of: date, raw: Path, salts_of: SaltsOf = lambda index: no_salts) -> None:
        """Read what is stored. Raises UserError where the index is damaged."""
        self.product, self.as_of, self.raw = product, as_of, raw
        self.index = RawIndex.load(raw)
        if not self.index.as_of:
            self.index.anew = reason_for_anew(product.name, as_of)
        self.is_over = self.index.as_of > as_of.isoformat()
        """Whether a run of a later as_of has been: then what was known on this one is stored."""
        self.window = Window(product=product, as_of=as_of, newest=self.index.before(as_of))
        self.refetched = self.index.to_refetch(refetched_days(product.name), self.window.last.isoformat())
        self.seen = Seen.load(raw, self.index.seen, product)
        self.spill = Spill(raw / SPILL)
        self.delivered = Delivered(
            product=product,
            window=self.window,
            arrivals=Arrivals(product, as_of, self.index),
            rows=self.spill,
            erased=Erased(product.name),
            salts=salts_of(self.index),
        )

    def __enter__(self) -> "Taking":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was held on disk."""
        self.spill.__exit__()

    @property
    def since(self) -> date | None:
        """Return the first event date that is asked for; None for all rows, as where they have no dates.

        Asked for are new dates, those whose labels are due, those of which late rows and labels are taken, and those
        that a person has fetched again.
        """
        if self.window.newest is None or not self.product.has_time:
            return None
        open_since = self.window.newest + timedelta(days=1)
        labels = open_since - timedelta(days=self.product.target.delay_days)
        first = [self.window.first_day_of_rows, self.window.first_day_of_labels, labels]
        return min(first + [date.fromisoformat(day) for day in self.refetched])

    def is_known(self, name: str, digest: str) -> bool:
        """Return whether a piece was taken whole by an earlier run, and nothing asks for its rows again.

        What a delivery lacks, which version of a key is the latest, and which of equal rows is which can only be seen
        where all rows of a date are read.
        """
        product = self.product
        if not product.has_key and not product.has_time:
            return False
        reads_whole_days = product.source.complete or product.source.latest_by or not product.has_key
        since = self.window.first_day_of_rows.isoformat() if reads_whole_days and product.has_time else "9999-99-99"
        return self.seen.is_known(name, digest, since, self.refetched)

    def evidence(self, name: str) -> Mapping[str, int]:
        """Return what a known piece adds to the checks of whole columns."""
        return self.seen.pieces[name].evidence if name in self.seen.pieces else {}

    def add(self, name: str, digest: str, rows: pd.DataFrame, evidence: Mapping[str, int]) -> None:
        """Add a piece that was read."""
        self.delivered.add(name, digest, rows, dict(evidence))

    def skip(self, name: str, days: tuple[str, str] | None) -> None:
        """Note a piece that was not read: it is known, or lies outside of the dates that are asked for."""
        if name in self.seen.pieces:
            self.delivered.skip(name, self.seen.pieces[name])
        elif days is not None:
            self.delivered.unread.append(days)

    def store(self) -> IngestReport:
        """Store and commit the delivery. Raises UserError where nothing is stored and it has no row that is due."""
        return self._storing().store(self.seen)

    def _storing(self) -> Storing:
        return Storing(self.product, self.window, self.index, self.delivered, self.refetched)

    def over(self) -> IngestReport:
        """Return the report of a run that takes nothing, as one of a later as_of has been.

        Raises UserError where nothing is stored that was known then.
        """
        self._storing().raise_if_nothing()
        if self.as_of.isoformat() < self.index.first_as_of:
            self.index.note_run(self.as_of)
            self.index.save()
        report = IngestReport(as_of=self.as_of.isoformat(), newest_as_of=self.index.as_of)
        return replace(report, rows_total=self.index.total("rows"), labels_total=self.index.total("labels"))
