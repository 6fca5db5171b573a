"""Held-out quality beside the peers: tables (flight delays, a public table) and text (news topics),
and what calibration does to probabilities.

Not a timing: no machine needs to be quiet for it. What is found of one is written before the next is begun.
"""

from benchmarks import quality_calibration, quality_news, quality_tables
from benchmarks.report import Result, write

PARTS = (quality_tables.flights, quality_calibration.run, quality_tables.tumours, quality_news.run)


def run() -> Result:
    """Return every product's quality in one result."""
    found: list[Result] = []
    for part in PARTS:
        found.append(part())
        write(_together(found))
    return _together(found)


def _together(parts: list[Result]) -> Result:
    return Result(
        name="quality",
        tables={title: rows for part in parts for title, rows in part.tables.items()},
        targets=[target for part in parts for target in part.targets],
        notes=[note for part in parts for note in part.notes],
    )
