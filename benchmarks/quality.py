"""Held-out quality beside the peers: tables (flight delays, a public table) and text (news topics).

Not a timing: no machine needs to be quiet for it.
"""

import importlib
import importlib.util

from benchmarks import quality_tables
from benchmarks.report import Result


def run() -> Result:
    """Every product's quality in one result."""
    parts = [quality_tables.flights(), quality_tables.tumours()]
    if importlib.util.find_spec("benchmarks.quality_news"):
        parts.append(importlib.import_module("benchmarks.quality_news").run())
    return Result(
        name="quality",
        tables={title: rows for part in parts for title, rows in part.tables.items()},
        targets=[target for part in parts for target in part.targets],
        notes=[note for part in parts for note in part.notes],
    )
