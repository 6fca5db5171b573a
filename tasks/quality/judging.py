"""Judge days in order and for good: a day that differs in kind is held until a person answers for it.

Judged are the days since the product's first load, each against the last 28 that passed before it: by their figures or
because a person accepted them. Older days came as history, all at once, and only serve to compare with. A held day is
never compared with; its rows go to quarantine, so that they reach neither a later night nor a training. A person
accepts the day (`make accept`) or has it fetched again (`make refetch`), and then it is judged anew: a verdict follows
from what is stored and decided up to the day itself, never from later days. So a verdict stands as long as nothing up
to its day has changed, and what follows a change is judged anew from the summaries of days, without their rows.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

from tasks.params import Expectation, Product
from tasks.quality.critical_shares import Share, add_shares, broken_as_a_whole, broken_by, shares_of
from tasks.quality.day_summaries import DaySummary
from tasks.quality.drift import compare
from tasks.quality.ledger import JudgedDay, Ledger
from tasks.quality.verdicts import Drift
from tasks.rows.versions import DaysByYear

WINDOW_DAYS = 28
ONE_DAY = timedelta(days=1)


class DayJudge:
    """Judges the days of one product, one after the other."""

    def __init__(
        self,
        product: Product,
        scored_day: date,
        first_judged: date | None,
        stored: DaysByYear,
        accepted: Mapping[str, str],
        expectations: Sequence[Expectation] = (),
    ) -> None:
        """Take the stored days up to the scored one, in order, and the reasons with which days were accepted.

        `first_judged` is the scored day of the first load; the scored day itself is always judged. `expectations` are
        those about rows.
        """
        self.product = product
        self.scored_day = scored_day
        self.first_judged = min(first_judged or scored_day, scored_day)
        self.accepted = accepted
        self.by_row = [each for each in expectations if each.is_row_by_row]
        self.whole = [each for each in expectations if not each.is_row_by_row]
        before = stored.newest(self.first_judged - ONE_DAY)
        self.compared_since = before - WINDOW_DAYS * ONE_DAY if before else self.first_judged
        """From this day on days are judged or compared with."""
        self.first = min(stored.first or self.first_judged, self.first_judged)
        """The day from which on days are judged, or compared with."""
        self.verdicts: dict[str, Drift] = {}
        """By judged day; of those before the day that was judged first only the held and the accepted ones."""
        self._stored = stored
        self._last_of_history = stored.newest(self.first_judged) or self.first
        self._shares: dict[int, Share] = {}
        self._passed: deque[DaySummary] = deque(maxlen=WINDOW_DAYS)
        self._newest_row: str | None = None
        self._fresh_until: str | None = None
        """The newest day with rows, or without as a person accepted."""

    def not_summed_up(self, ledger: Ledger) -> set[date]:
        """Return the days with rows that are compared with now, and were not."""
        return {*self._stored.between(self.compared_since, date.fromisoformat(ledger.compared_since))}

    def first_changed(self, ledger: Ledger) -> date:
        """Return the first day whose verdict does not follow from the ledger, apart from days that are new or changed.

        It is the first that is judged for the first time, or that a person accepted or no longer does.
        """
        if ledger.first_judged != self.first_judged.isoformat():
            return self.first
        decided = {day: verdict.accepted for day, verdict in ledger.verdicts.items() if verdict.accepted is not None}
        now = {day: why for day, why in self.accepted.items() if self._is_judged(day)}
        changed = [day for day in decided.keys() | now.keys() if decided.get(day) != now.get(day)]
        judged_until = self.product.scored_day(date.fromisoformat(ledger.as_of))
        return min(self.scored_day, judged_until + ONE_DAY, *map(date.fromisoformat, changed))

    def start(self, day: date, ledger: Ledger) -> None:
        """Go on at a day: all before it are taken from the ledger."""
        self.verdicts = {name: each for name, each in ledger.verdicts.items() if name < day.isoformat()}
        held = {name for name, each in self.verdicts.items() if each.is_held}
        passed: list[DaySummary] = []
        at = day - ONE_DAY
        while at >= self.first and len(passed) < WINDOW_DAYS:
            name = at.isoformat()
            summary = ledger.summary(name)
            is_gap = at not in self._stored and (self.first_judged <= at or at < self._last_of_history)
            if name not in held and (summary or is_gap):
                passed.append(summary or DaySummary(date=name))
            at -= ONE_DAY
        self._passed.extend(reversed(passed))
        counted = ledger.days["rows"].sums_before(day.isoformat(), held)
        self._shares = add_shares(shares_of(found, self.by_row) for found in counted)
        newest = self._stored.newest(day - ONE_DAY)
        self._newest_row = newest.isoformat() if newest else None
        accepted = (name for name, each in self.verdicts.items() if each.accepted is not None)
        self._fresh_until = max([*accepted, *([self._newest_row] if self._newest_row else [])], default=None)

    def judge(self, day: date, found: JudgedDay | None, summary: DaySummary | None) -> Drift | None:
        """Judge the next day, by what was found of its rows, if it has any; None for a day of the history."""
        name = day.isoformat()
        if found:
            self._newest_row = self._fresh_until = name
        if day >= self.first_judged:
            return self._judge(summary or DaySummary(date=name), found)
        if found:
            self._shares = add_shares([self._shares, shares_of(found, self.by_row)])
        # What comes after the last day of a history is no gap in it, and says nothing about what is usual.
        if summary or (not found and day < self._last_of_history):
            self._passed.append(summary or DaySummary(date=name))
        return None

    def note(self, ledger: Ledger) -> None:
        """Keep the verdicts in a ledger: of days that simply passed none is needed."""
        ledger.first_judged = self.first_judged.isoformat()
        ledger.verdicts = {
            day: each for day, each in sorted(self.verdicts.items()) if each.is_held or each.accepted is not None
        }
        ledger.compare_since(self.compared_since)

    @property
    def drift(self) -> Drift:
        """Return the verdict on the scored day."""
        return self.verdicts[self.scored_day.isoformat()]

    @property
    def held(self) -> list[Drift]:
        """Return the held days."""
        return [verdict for _, verdict in sorted(self.verdicts.items()) if verdict.is_held]

    @property
    def left_behind(self) -> set[str]:
        """Return the held days before the scored one: those that this run goes on without."""
        return {verdict.date for verdict in self.held} - {self.scored_day.isoformat()}

    def _is_judged(self, day: str) -> bool:
        return self.first_judged.isoformat() <= day <= self.scored_day.isoformat()

    def _judge(self, day: DaySummary, found: JudgedDay | None) -> Drift:
        accepted, shares = self.accepted.get(day.date), shares_of(found, self.by_row)
        together = add_shares([self._shares, shares])
        broken = [*broken_by(shares, together, self.by_row), *broken_as_a_whole(found, self.whole)]
        verdict = Drift(
            date=day.date,
            days_before=sum(each.rows_in > 0 for each in self._passed),
            accepted=accepted,
            newest_row=self._newest_row,
            figures=[*broken, *compare(day, self._passed, self._fresh_until, self.product)],
        )
        if verdict.is_held:
            verdict = replace(verdict, rows_held=day.rows_valid)
        else:
            self._passed.append(day)
            self._shares = together
        self.verdicts[day.date] = verdict
        if accepted is not None:
            self._fresh_until = day.date
        return verdict


def figures_beyond(verdict: Drift) -> str:
    """Return the names of the figures because of which a day is held."""
    return ", ".join(figure.name.replace(": ", " ") for figure in verdict.beyond)
