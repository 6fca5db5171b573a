"""Write many dates in order, as a first load does: the days of an old month at once, as one file.

The bytes are those of writing each date and compacting at the end, without a file for each date of a history.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date

import pandas as pd
import pyarrow as pa

from tasks.rows.partitions import Partitions, first_of_month, is_old

BYTES_HELD = 128 * 2**20
"""Of more bytes than these the oldest month's dates are written each for itself, and compacted at the end."""


@contextmanager
def in_order(folder: Partitions, newest: date | None) -> Iterator["DayWriter"]:
    """Yield a writer of dates in order, all of which are written when the context ends without an error.

    `newest` is the newest date that the folder will have; None where it follows from what is written.
    """
    writer = DayWriter(folder, newest)
    yield writer
    writer.flush()


class DayWriter:
    """Writes dates in order; those of an old month are held until it is over. What is held is not read."""

    def __init__(self, folder: Partitions, newest: date | None) -> None:
        """Take the folder, and the newest date that it will have."""
        self._folder, self._newest = folder, newest
        self._last = newest or folder.newest() or date.min
        self._held: dict[date, dict[date, pa.Table]] = {}
        self._n_bytes: Counter[date] = Counter()

    def write(self, day: date, rows: pd.DataFrame | pa.Table) -> None:
        """Write the rows of a date in place of those that it had, at the latest by `flush`."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
        if self._newest and not is_old(day, self._newest):
            self._folder.write(day, table)
            return
        self._last = max(self._last, day)
        month = first_of_month(day)
        self._held.setdefault(month, {})[day] = table
        self._n_bytes[month] += table.nbytes
        for before in [each for each in self._held if each < month and is_old(each, self._last)]:
            self._folder.add_to_month(self._taken(before))
        if self._n_bytes.total() > BYTES_HELD:
            self._write_days(min(self._held))

    def remove(self, days: Iterable[date]) -> None:
        """Remove dates, of which any may be absent and none is held."""
        self._folder.remove(days)

    def flush(self) -> None:
        """Write what is held."""
        for month in [*self._held]:
            if is_old(month, self._last):
                self._folder.add_to_month(self._taken(month))
            else:
                self._write_days(month)

    def _write_days(self, month: date) -> None:
        for day, table in self._taken(month).items():
            self._folder.write(day, table)

    def _taken(self, month: date) -> dict[date, pa.Table]:
        self._n_bytes.pop(month)
        return self._held.pop(month)
