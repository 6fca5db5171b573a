"""Follow from day to day what share of the rows breaks each critical expectation.

A night stops where, of all rows so far, fewer than `mostly` hold. On the next night one bad day is a smaller share of
more rows: so each day is judged with the rows up to it, and stays held.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from tasks.params import Expectation, columns_named
from tasks.quality.checked_table import CheckedTable
from tasks.quality.verdicts import Figure

Share = tuple[int, int]
"""Rows that break the expectation, and rows with a cell to judge."""


def daily_shares(checked: CheckedTable, expectations: Sequence[Expectation]) -> dict[str, dict[int, Share]]:
    """Return, by day of a table, the shares of the critical ones among its expectations, by their place."""
    days = checked.delivered["dt"]
    found: dict[str, dict[int, Share]] = {str(day): {} for day in days.unique()}
    for place, expectation in enumerate(expectations):
        if expectation.severity != "critical":
            continue
        columns = [column for _, column in columns_named(expectation.kwargs) if column in checked.typed]
        # Great Expectations judges no row whose cells are all missing, but where missing cells are what it looks for.
        is_judged = ~checked.typed[columns].isna().all(axis=1) | expectation.type.endswith("_null")
        is_bad = pd.Series(checked.typed.index.isin(checked.unexpected[place]), checked.typed.index)
        counts = pd.DataFrame({"bad": is_bad, "judged": is_judged}).groupby(days).sum()
        for day, n_bad, n_judged in counts.itertuples():
            found[str(day)][place] = int(n_bad), int(n_judged)
    return found


def add_shares(before: Mapping[int, Share], day: Mapping[int, Share]) -> dict[int, Share]:
    """Return the shares of the days before and one more together."""
    found = dict(before)
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
            columns = "+".join(column for _, column in columns_named(expectation.kwargs))
            name = f"{expectation.type} on {columns}"
            figures.append(Figure(name=name, seen=1 - n_bad_in_all / n_judged, least=least, most=None))
    return figures
