"""Judge days in order and for good: a day that differs in kind is held until a person answers for it.

Judged are the days since the product's first load, each against the last 28 that passed before it: by their figures or
because a person accepted them. Older days came as history, all at once, and only serve to compare with. A held day is
never compared with; its rows go to quarantine, so that they reach neither a later night nor a training. A person
accepts the day (`make accept`) or has it fetched again (`make refetch`), and then it is judged anew, as every day is in
every run: a verdict follows from what is stored and decided up to the day itself, never from later days.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pandas as pd

from tasks.params import Expectation, Product
from tasks.quality.checked_table import HELD, CheckedTable
from tasks.quality.critical_shares import Share, add_shares, broken_by, daily_shares
from tasks.quality.day_summaries import DaySummary, sum_up_days
from tasks.quality.drift import compare
from tasks.quality.verdicts import Drift

WINDOW_DAYS = 28
ONE_DAY = timedelta(days=1)


class DayJudge:
    """Judges the days of one product, one after the other."""

    def __init__(
        self,
        product: Product,
        scored_day: date,
        first_judged: date | None,
        stored: Sequence[date],
        accepted: Mapping[str, str],
    ) -> None:
        """Take the stored days up to the scored one, in order, and the reasons with which days were accepted.

        `first_judged` is the scored day of the first load; the scored day itself is always judged.
        """
        self.product = product
        self.scored_day = scored_day
        self.first_judged = min(first_judged or scored_day, scored_day)
        self.accepted = accepted
        history = [day for day in stored if day < self.first_judged]
        start = max(history) - WINDOW_DAYS * ONE_DAY if history else self.first_judged
        self.wanted = {day.isoformat() for day in stored if day >= start}
        """The days that are judged or compared with."""
        self.verdicts: dict[str, Drift] = {}
        """By judged day."""
        self._shares: dict[int, Share] = {}
        self._passed: deque[DaySummary] = deque(maxlen=WINDOW_DAYS)
        self._next = min([*stored[:1], self.first_judged])
        self._last_of_history = max((day for day in stored if day <= self.first_judged), default=self._next)
        self._newest_row: str | None = None
        self._fresh_until: str | None = None
        """The newest day with rows, or without as a person accepted."""

    def judge(self, checked: CheckedTable, expectations: Sequence[Expectation] = ()) -> None:
        """Judge the days of a table, and those without rows before them; hold back the rows of days that are held.

        `expectations` are those that were evaluated of the table. Each day lies in one table, whole, and the tables
        come in order of day.
        """
        days = checked.delivered["dt"]
        shares = daily_shares(checked, expectations)
        summaries = sum_up_days(checked, self.product, self.wanted)
        for text in sorted(map(str, days.unique())):
            day = date.fromisoformat(text)
            self._pass_over(day)
            self._newest_row = self._fresh_until = text
            self._next = day + ONE_DAY
            if day < self.first_judged:
                self._shares = add_shares(self._shares, shares[text])
                if text in summaries:
                    self._passed.append(summaries[text])
            elif self._judge(summaries[text], expectations, shares[text]).is_held:
                rows = (days == text) & checked.is_valid
                checked.add_violation(rows, HELD, _names(self.verdicts[text]))
                self.verdicts[text] = replace(self.verdicts[text], rows_held=int(rows.sum()))

    def finish(self) -> Drift:
        """Judge the days without rows up to the scored day; return the verdict on the scored day."""
        self._pass_over(self.scored_day + ONE_DAY)
        return self.verdicts[self.scored_day.isoformat()]

    @property
    def held(self) -> list[Drift]:
        """Return the held days."""
        return [verdict for verdict in self.verdicts.values() if verdict.is_held]

    @property
    def left_behind(self) -> set[str]:
        """Return the held days before the scored one: those that this run goes on without."""
        return {verdict.date for verdict in self.held} - {self.scored_day.isoformat()}

    def _pass_over(self, until: date) -> None:
        """Take the days without rows before a day: judged ones, and those between days of the history.

        What comes after the last day of a history is no gap in it, and says nothing about what is usual.
        """
        while self._next < until:
            empty = DaySummary(date=self._next.isoformat())
            if self._next >= self.first_judged:
                self._judge(empty)
            elif self._next < self._last_of_history:
                self._passed.append(empty)
            self._next += ONE_DAY

    def _judge(
        self, day: DaySummary, expectations: Sequence[Expectation] = (), shares: Mapping[int, Share] | None = None
    ) -> Drift:
        accepted, together = self.accepted.get(day.date), add_shares(self._shares, shares or {})
        broken = broken_by(shares or {}, together, expectations)
        verdict = Drift(
            date=day.date,
            days_before=sum(each.rows_in > 0 for each in self._passed),
            accepted=accepted,
            newest_row=self._newest_row,
            figures=[*broken, *compare(day, self._passed, self._fresh_until, self.product)],
        )
        self.verdicts[day.date] = verdict
        if not verdict.is_held:
            self._passed.append(day)
            self._shares = together
        if accepted is not None:
            self._fresh_until = day.date
        return verdict


def _names(verdict: Drift) -> str:
    return ", ".join(figure.name.replace(": ", " ") for figure in verdict.beyond)


def without_days(checked: CheckedTable, days: set[str]) -> CheckedTable:
    """Return the table without some days' rows, and without reasons."""
    kept = ~checked.delivered["dt"].isin(days)
    delivered, typed = (table[kept].reset_index(drop=True) for table in (checked.delivered, checked.typed))
    return CheckedTable(pd.DataFrame(delivered), pd.DataFrame(typed))
