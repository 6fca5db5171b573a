"""Read what MySQL and MariaDB have and their drivers deliver otherwise than the server writes it.

A TIME, which may be of 838 hours or below zero, comes as a length, and a BIT, by some drivers, as bytes. Dates of zeros
are left to the driver: PyMySQL delivers their text, which is no date and says so, others a missing cell.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

TIME, BIT = 11, 16
"""Numbers of types, fixed by the protocol."""
_OUTAGE = re.compile(r"^\(?(20(02|03|05|06|13|55)|1040|1053|1205|1213|1927)\b")
"""Numbers of the errors that waiting can mend: no connection or a lost one, too many of them, a lock."""


def as_written(
    description: Sequence[Sequence[Any]], parts: Iterator[Sequence[Sequence[Any]]]
) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield the parts of a result with each TIME as its text and each BIT as its number.

    `description` is the cursor's: of each column its name, the number of its type, and more.
    """
    mends = {at: _MENDS[column[1]] for at, column in enumerate(description) if column[1] in _MENDS}
    for part in parts:
        if not mends:
            yield part
        else:
            yield [[mends[at](cell) if at in mends else cell for at, cell in enumerate(row)] for row in part]


def is_outage(message: str) -> bool:
    """Return whether an error, by the words of its driver, is one that waiting can mend.

    Not all drivers say so by its class.

    >>> is_outage("2003: Can't connect"), is_outage('(2013, "Lost connection")'), is_outage("1045 (28000): denied")
    (True, True, False)
    """
    return _OUTAGE.match(message) is not None


def _time(cell: object) -> object:
    """Return the text that the server writes of a time.

    >>> _time(timedelta(hours=-12, minutes=-30, seconds=-15)), _time(timedelta(hours=838, microseconds=250000))
    ('-12:30:15', '838:00:00.250000')
    """
    if not isinstance(cell, timedelta):
        return cell
    seconds, fraction = divmod(abs(cell), timedelta(seconds=1))
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    text = f"{'-' * (cell < timedelta(0))}{hour:02d}:{minute:02d}:{second:02d}"
    return text + (f".{fraction.microseconds:06d}" if fraction else "")


def _bit(cell: object) -> object:
    """Return the number that a field of bits is.

    >>> _bit(b"\\x00"), _bit(b"\\x01\\x00"), _bit(1)
    (0, 256, 1)
    """
    return int.from_bytes(cell, "big") if isinstance(cell, bytes | bytearray) else cell


_MENDS: dict[int, Callable[[object], object]] = {TIME: _time, BIT: _bit}
