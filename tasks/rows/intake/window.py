"""Say which dates a run takes as a matter of course, and how late versions beside the plan may come."""

from dataclasses import dataclass
from datetime import date, timedelta

from tasks.params import Product


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a run of `as_of` takes after the run of `newest`; every date is that of an event, unless it says known."""

    product: Product
    as_of: date
    newest: date | None
    """The newest run of an earlier as_of; None before the first."""

    @property
    def last(self) -> date:
        """Return the last event date that is known."""
        return self.product.scored_day(self.as_of)

    def is_new(self, day: date) -> bool:
        """Return whether the rows of a date became known after the newest earlier run, as planned."""
        known = day - timedelta(days=self.product.predict.lead_days)
        return self._became_known(known)

    def label_is_new(self, day: date) -> bool:
        """Return whether the labels of a date became known after the newest earlier run, as planned."""
        return self._became_known(self.label_known(day))

    def label_known(self, day: date) -> date:
        """Return the date on which the labels of an event date should be known."""
        return day + timedelta(days=self.product.target.delay_days)

    def takes_rows(self, day: date) -> bool:
        """Return whether versions of rows of a date are taken that come now."""
        return not self.product.has_time or day >= self.first_day_of_rows

    def takes_labels(self, day: date) -> bool:
        """Return whether versions of labels of a date are taken that come now."""
        return not self.product.has_time or day >= self.first_day_of_labels

    @property
    def first_day_of_rows(self) -> date:
        """Return the first event date of which late and changed rows are taken."""
        horizon = timedelta(days=self.product.predict.lead_days)
        return self._first_known + horizon - timedelta(days=self.product.source.late_days)

    @property
    def first_day_of_labels(self) -> date:
        """Return the first event date of which late and corrected labels are taken."""
        delay = timedelta(days=self.product.target.delay_days)
        return self._first_known - delay - timedelta(days=self.product.target.late_days)

    @property
    def _first_known(self) -> date:
        """Return the day from which on it could have been seen what this run sees: how late it is counts from here.

        So a product that runs once a week loses nothing that came the day after the run.
        """
        return self.as_of if self.newest is None else min(self.as_of, self.newest + timedelta(days=1))

    def _became_known(self, known: date) -> bool:
        return known <= self.as_of and (self.newest is None or known > self.newest)
