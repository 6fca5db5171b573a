"""Place the points of small charts, which a template draws as SVG."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

WIDTH, HEIGHT, MARGIN = 320.0, 84.0, 6.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A night in a chart."""

    x: float
    y: float
    """From the top, in units of the drawing."""
    height: float
    """Of a bar that stands on the floor."""
    top: float
    """Of a second bar that stands on the first one."""
    text: str
    """What the point says when it is pointed at."""
    is_apart: bool = False
    """Whether it counts for nothing, such as a withdrawn night: it is drawn hollow, and no line leads to it."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of nights."""

    title: str
    """What it shows."""
    kind: str
    """line or bars."""
    points: tuple[Point, ...]
    """Nights with a value, by date."""
    paths: tuple[str, ...]
    """The lines between nights that follow one another, as points of SVG."""
    first: date
    """The first night of the chart."""
    last: date
    """The last one."""
    low: float
    """The value at the floor."""
    high: float
    """The value at the ceiling."""
    bar: float
    """How wide a bar is."""
    level: float | None = None
    """The height of a line to compare with, from the top."""
    level_text: str = ""
    """What that line is."""
    has_tops: bool = False
    """Whether some bar has a second one on it."""
    width: float = WIDTH
    height: float = HEIGHT
    margin: float = MARGIN


def line_chart(
    title: str,
    nights: Sequence[tuple[date, float | None, str]],
    *,
    level: float | None = None,
    level_text: str = "",
    floor: float | None = None,
    apart: Collection[date] = (),
) -> Chart | None:
    """Return a line through the nights that have a value, past those `apart`; None where fewer than two have one."""
    measured = [(day, value, text) for day, value, text in nights if value is not None]
    if len(measured) < 2:
        return None
    values = [value for _, value, _ in measured] + ([level] if level is not None else [])
    low, high = (min(values) if floor is None else floor), max(values)
    high = high if high > low else low + (abs(low) or 1.0)
    first, last = nights[0][0], nights[-1][0]

    def down(value: float) -> float:
        return round(MARGIN + (HEIGHT - 2 * MARGIN) * (high - value) / (high - low), 2)

    points = tuple(
        Point(x=_across(day, first, last), y=down(value), height=0, top=0, text=text, is_apart=day in apart)
        for day, value, text in measured
    )
    paths, path, before = [], [], None
    for (day, _, _), point in zip(measured, points, strict=True):
        if point.is_apart:
            continue
        if before is not None and (day - before).days > 7:  # a gap is shown as one
            paths.append(" ".join(path))
            path = []
        path.append(f"{point.x},{point.y}")
        before = day
    return Chart(
        title=title,
        kind="line",
        points=points,
        paths=(*paths, " ".join(path)),
        first=first,
        last=last,
        low=low,
        high=high,
        bar=0,
        level=None if level is None else down(level),
        level_text=level_text,
    )


def bar_chart(
    title: str, nights: Sequence[tuple[date, int, int, str]], *, apart: Collection[date] = ()
) -> Chart | None:
    """Return two bars on top of one another for each night; None where there is no night or nothing to show."""
    high = max((below + above for _, below, above, _ in nights), default=0)
    if not high:
        return None
    first, last = nights[0][0], nights[-1][0]
    room = HEIGHT - 2 * MARGIN

    def of(day: date, below: int, above: int, text: str) -> Point:
        height, top = room * below / high, room * above / high
        y = HEIGHT - MARGIN - height
        x, drawn = _across(day, first, last), {"height": round(height, 2), "top": round(top, 2)}
        return Point(x=x, y=round(y, 2), **drawn, text=text, is_apart=day in apart)

    days = max((last - first).days + 1, 8)
    return Chart(
        title=title,
        kind="bars",
        points=tuple(of(*night) for night in nights),
        paths=(),
        first=first,
        last=last,
        low=0,
        high=high,
        has_tops=any(above for _, _, above, _ in nights),
        bar=round(max(1.2, min(14.0, 0.7 * WIDTH / days)), 2),
    )


def _across(day: date, first: date, last: date) -> float:
    """Return how far from the left a day lies; a single one in the middle."""
    days = (last - first).days
    room = WIDTH - 4 * MARGIN
    return round(2 * MARGIN + (room * (day - first).days / days if days else room / 2), 2)
