"""Where rows come from: `fetch` delivers those of a product by the reader of its source's kind.

`formats` has a module for each format of files (CSV, Parquet, JSON Lines), `sql` reads queries, `address` finds and
hides addresses; `flights`, `news`, `digits`, `credit` and `purchases` are the demonstration's sources in Python.

The contract of a source in Python, `source: {kind: python, callable: "tasks.sources.<module>:rows"}`:
`rows(start, end)` returns a pandas DataFrame of every row whose event date lies between the two dates, inclusive;
`start` may be None for "from the beginning". The frame holds the declared key, time, columns and target, the target
empty where the label is not known yet. The same dates give the same rows, and nothing in a row was learned after the
row is scored: `tasks.ingest` takes care of the target. Where the product has no `time`, `start` is always None.
"""

import importlib.util
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.runtime.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def package_folder(source: str, package: str) -> Path:
    """Return the folder of a package that holds a source's data; it is found, not imported.

    Raises UserError where it is not installed.
    """
    spec = importlib.util.find_spec(package.lower())
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{source}: the package {package} must be installed, and is not; run make setup")
    return Path(spec.submodule_search_locations[0])


def between(rows: "pd.DataFrame", days: "pd.Series", start: date | None, end: date) -> "pd.DataFrame":
    """Return the rows whose day, written as 2013-06-30, lies between two dates, inclusive; None: from the first on."""
    return rows[(days <= end.isoformat()) & (start is None or days >= str(start))].reset_index(drop=True)
