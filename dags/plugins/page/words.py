"""Write numbers and times as a person reads them."""

from datetime import datetime

NONE = "–"


def number(value: float | None) -> str:
    """Return a measured number with four digits that count.

    >>> number(0.79364), number(1234.5), number(None)
    ('0.7936', '1,234', '–')
    """
    if value is None:
        return NONE
    if value and (abs(value) >= 1000 or abs(value) < 0.001):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def signed(value: float | None) -> str:
    """Return a difference with its sign.

    >>> signed(0.0123), signed(-0.5)
    ('+0.0123', '−0.5000')
    """
    if value is None:
        return NONE
    return ("−" if value < 0 else "+") + number(abs(value))


def count(value: int | None) -> str:
    """Return how many.

    >>> count(336776)
    '336,776'
    """
    return NONE if value is None else f"{value:,}"


def moment(value: datetime | None) -> str:
    """Return a time to the minute, in UTC.

    >>> from datetime import UTC
    >>> moment(datetime(2013, 7, 1, 2, 0, 9, tzinfo=UTC))
    '2013-07-01 02:00 UTC'
    """
    return NONE if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def ago(seconds: float) -> str:
    """Return how long ago something was.

    >>> ago(59), ago(7200), ago(86400 * 3), ago(86400 * 400)
    ('a minute ago', '2 hours ago', '3 days ago', '400 days ago')
    """
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        n = int(seconds // size)
        if n >= 1:
            return f"{n:,} {name}{'s' * (n > 1)} ago"
    return "a minute ago"
