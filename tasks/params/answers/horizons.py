"""Predict several numbers of days ahead: what `predict.horizon_days` may be, and what goes with a list of them."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from model.heads import head_of

HORIZON = "horizon_days"
"""The input, and the column of a night, that says how many days ahead a row is predicted."""
FOR_DAY = "for_day"
"""The input, and the column of a night, with the date that is predicted: the row's own, and the horizon."""
NAIVE = "seasonal_naive"
"""The column of a split with the newest label of the same weekday that was known on a row's day."""
HORIZON_COLUMNS = (HORIZON, FOR_DAY, NAIVE)
SLICE = "horizon"
"""The slice that each horizon is."""
MAX_HORIZON_DAYS, MAX_HORIZONS = 366, 60
_USE = "use for example [1, 7, 28]"


def _to_horizons(value: Any) -> int | tuple[int, ...]:
    """Return a number of days, or several that ascend. Raises ValueError where it is neither."""
    if isinstance(value, list | tuple):
        return _several(tuple(value))
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number or a list of them, got {value!r}; use for example 1, or [1, 7, 28]")
    if value < 0:
        raise ValueError(f"must be at least 0, got {value}; use 0 or more")
    return value


def _several(days: tuple[Any, ...]) -> tuple[int, ...]:
    if not days or len(days) > MAX_HORIZONS:
        raise ValueError(f"must be a number, or a list of 1 to {MAX_HORIZONS}, got {len(days)}; {_USE}")
    for each in days:
        if isinstance(each, bool) or not isinstance(each, int) or not 1 <= each <= MAX_HORIZON_DAYS:
            raise ValueError(f"must be a list of numbers from 1 to {MAX_HORIZON_DAYS}, got {each!r}; {_USE}")
    if any(later <= earlier for earlier, later in pairwise(days)):
        raise ValueError(f"must ascend, got {list(days)}; use {sorted(set(days))}")
    return days


_Days = Annotated[int, Field(ge=0)]
_Several = Annotated[
    tuple[Annotated[int, Field(ge=1, le=MAX_HORIZON_DAYS)], ...], Field(min_length=1, max_length=MAX_HORIZONS)
]
HorizonDays = Annotated[int | tuple[int, ...], BeforeValidator(_to_horizons, json_schema_input_type=_Days | _Several)]


def mistakes_of_horizons(parts: Any) -> Iterator[str]:
    """Refuse several horizons where a label of a later day cannot be found, or would leak; `parts` as of the rules."""
    predict, target, split = parts.predict, parts.target, parts.split
    if not (predict and predict.horizons):
        return
    got = f"got {list(predict.horizons)}"
    if target and not head_of(target.task).has_horizons:
        yield f"predict.horizon_days must be a number for a {target.task} target, {got}; use one number"
    if parts.has_time and parts.time and parts.key is not None and parts.time not in parts.key:
        yield (
            f"key must hold the time {parts.time} for several horizons, whose labels are those of the same key on "
            f"later days, got {', '.join(parts.key) or 'no key'}; use key: [<the series>, {parts.time}]"
        )
    if split and split.by == "hash" and parts.has_time:
        yield "split.by must be time for several horizons, whose rows share labels, got hash; use time"
    if split and split.group:
        yield (
            f"split.group must not be given for several horizons, since each row's series goes on in every part, "
            f"got {split.group!r}; delete it"
        )
    for place, name in parts.places:
        if name in HORIZON_COLUMNS:
            yield f"{place} must not be a name that several horizons add, got {name!r}; rename the column"
