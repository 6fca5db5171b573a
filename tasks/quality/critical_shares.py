"""Follow from day to day what share of the rows breaks each critical expectation.

A night stops where, of all rows so far, fewer than `mostly` hold. On the next night one bad day is a smaller share of
more rows: so each day is judged with the rows up to it, and stays held.
"""

from collections.abc import Iterable, Mapping, Sequence

from tasks.params import Expectation, columns_named
from tasks.quality.ledger import DaysTogether, JudgedDay
from tasks.quality.verdicts import Figure

Share = tuple[int, int]
"""Rows that break the expectation, and rows with a cell to judge."""


def shares_of(day: JudgedDay | DaysTogether | None, expectations: Sequence[Expectation]) -> dict[int, Share]:
    """Return the shares of the critical ones among the expectations that judge each row by itself, by their place."""
    return {
        place: (tally.unexpected, tally.seen - tally.missing)
        for place, (expectation, tally) in enumerate(zip(expectations, day.by_row if day else (), strict=False))
        if expectation.severity == "critical"
    }


def add_shares(shares: Iterable[Mapping[int, Share]]) -> dict[int, Share]:
    """Return the shares of several days together."""
    found: dict[int, Share] = {}
    for day in shares:
        for place, (n_bad, n_judged) in day.items():
            n_bad_before, n_judged_before = found.get(place, (0, 0))
            found[place] = n_bad_before + n_bad, n_judged_before + n_judged
    return found


def broken_by(
    day: Mapping[int, Share], together: Mapping[int, Share], expectations: Sequence[Expectation]
) -> list[Figure]:
    """Return a figure for each critical expectation that the day breaks, with the rows up to it."""
    figures = []
    for place, (n_bad, _) in day.items():
        expectation, (n_bad_in_all, n_judged) = expectations[place], together[place]
        least = float(expectation.kwargs.get("mostly", 1))
        if n_bad and 1 - n_bad_in_all / n_judged < least:
            name = f"{expectation.type} on {_columns(expectation)}"
            figures.append(Figure(name=name, seen=1 - n_bad_in_all / n_judged, least=least, most=None))
    return figures


def broken_as_a_whole(day: JudgedDay | None, expectations: Sequence[Expectation]) -> list[Figure]:
    """Return a figure for each critical expectation about a whole table that the day breaks, with those before it."""
    return [
        Figure(name=f"{expectation.type} on {_columns(expectation)} holds", seen=0.0, least=1.0, most=None)
        for expectation, outcome in zip(expectations, day.whole if day else (), strict=False)
        if expectation.severity == "critical" and not outcome.success
    ]


def _columns(expectation: Expectation) -> str:
    return "+".join(column for _, column in columns_named(expectation.kwargs)) or "table"
