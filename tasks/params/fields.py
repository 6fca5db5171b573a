"""Types of the values in params.yaml that more than one part of a product uses, each with its rule."""

import difflib
import importlib.util
import re
import zoneinfo
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from model.heads.regression import LEVEL_DECIMALS, MAX_LEVELS
from model.settings import LANGUAGE_FILE
from tasks.runtime.records import parse_date

MEASURED = "measured"
URL_PASSWORD = re.compile(r"://[^/@:]*:[^/@]+@")
SQL_PASSWORD = re.compile(r"://[^/@:]*:[^@]+@|[?&](password|passwd|pwd)=", re.IGNORECASE)
"""SQLAlchemy reads a password up to the @, whatever is in it, and drivers take one after the question mark."""
ZONES_MEANT = {
    "PST": "America/Los_Angeles",
    "PDT": "America/Los_Angeles",
    "MDT": "America/Denver",
    "CST": "America/Chicago",
    "CDT": "America/Chicago",
    "EDT": "America/New_York",
    "BST": "Europe/London",
    "CEST": "Europe/Berlin",
    "EEST": "Europe/Athens",
    "IST": "Asia/Kolkata",
    "JST": "Asia/Tokyo",
    "AEST": "Australia/Sydney",
    "AEDT": "Australia/Sydney",
    "NZST": "Pacific/Auckland",
}
"""Abbreviations that name no zone, or several, with a place that may be meant."""
WEIGHT_FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""Files of BERT-family weights; `model.network.bert` reads them."""
USE = "use BERT-family weights, or pretrain"


@dataclass(frozen=True)
class OneOf:
    """One of the names of a list, which other modules may lengthen: an enum in the JSON Schema."""

    names: tuple[str, ...]
    """The names that are allowed."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


def _to_day(value: Any) -> date:
    if isinstance(value, date):
        return value
    try:
        return parse_date(str(value))
    except ValueError:
        raise ValueError(f'must be a date written as YYYY-MM-DD, got {value!r}; use for example "2013-12-31"') from None


def module_exists(module: str) -> bool:
    """Return whether the module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def without_password(pattern: re.Pattern[str]) -> AfterValidator:
    """Return the rule that a URL holds no password, whose message does not repeat it."""

    def check(url: str | None) -> str | None:
        if url and pattern.search(url):
            raise ValueError(
                "must not hold a password; put the URL into an environment variable and name it: url_env: WAREHOUSE_URL"
            )
        return url

    return AfterValidator(check)


def _is_cron(value: str) -> str:
    from croniter import croniter

    if not croniter.is_valid(value):
        raise ValueError(f'must be a cron expression or null, got {value!r}; use for example "0 3 * * 0"')
    return value


@cache
def _time_zones() -> frozenset[str]:
    """Return the names of the IANA time zones; `localtime` depends on the machine, and `Factory` is none."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"})


def _is_time_zone(value: str) -> str:
    if value not in _time_zones():
        raise ValueError(f"must be the name of an IANA time zone, got {value!r}; use {_meant_zone(value)}")
    return value


def _meant_zone(text: str) -> str:
    """Return the zone that a person may have meant: by its spelling, its city, or its abbreviation."""
    wanted = text.strip().replace(" ", "_").casefold()
    if wanted.upper() in ZONES_MEANT:
        return ZONES_MEANT[wanted.upper()]
    if re.search(r"[+-]\d", wanted):
        return "the name of a place with that clock, for example Europe/Berlin"
    spelt = {zone.casefold(): zone for zone in sorted(_time_zones())}
    cities = {zone.rpartition("/")[2]: spelt[zone] for zone in spelt if zone.count("/")}
    for names in (spelt, cities):
        near = difflib.get_close_matches(wanted, names, 1, cutoff=0.8)
        if near:
            return names[near[0]]
    return "for example Europe/Berlin"


def _is_s3_url(value: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9._=/-]*)?", value):
        raise ValueError(f"must be s3://bucket/prefix, got {value!r}; use for example s3://lamplighter/predictions")
    return value


def _is_hour(value: str) -> str:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        raise ValueError(f'must be an hour of the day, got {value!r}; write it in quotes, like "05:00"')
    return value


Cron = Annotated[str, AfterValidator(_is_cron)]
Hour = Annotated[str, AfterValidator(_is_hour)]
Day = Annotated[date, BeforeValidator(_to_day)]
TimeZone = Annotated[str, AfterValidator(_is_time_zone)]
S3Url = Annotated[str, AfterValidator(_is_s3_url)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _to_costs(value: Any, place: str = "") -> Any:
    """Return costs as numbers. Raises ValueError for what is none."""
    if isinstance(value, dict):
        return {str(name): _to_costs(each, f"{place}{name}: ") for name, each in value.items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if place and is_number and 0 <= value < inf:
        return float(value)
    use = "{false_positive: 1, false_negative: 5}"
    got = f"{place}{value!r}"
    raise ValueError(f"must hold numbers of 0 or more, by the error's name, got {got}; use for example {use}")


Cost = Annotated[float, Field(ge=0)]
Costs = Annotated[
    dict[str, float | dict[str, float]],
    BeforeValidator(_to_costs, json_schema_input_type=dict[str, Cost | dict[str, Cost]]),
]


def checked_levels(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return levels of quantiles. Raises ValueError unless they ascend between 0 and 1, in steps that names can say."""
    use = "use for example [0.1, 0.5, 0.9]"
    for level in levels:
        if not 0 < level < 1 or round(level, LEVEL_DECIMALS) != level:
            raise ValueError(f"must lie between 0 and 1, with {LEVEL_DECIMALS} decimals at most, got {level}; {use}")
    if any(later <= level for level, later in pairwise(levels)):
        raise ValueError(f"must ascend, got {list(levels)}; use {sorted(set(levels))}")
    if len(levels) > MAX_LEVELS:
        raise ValueError(f"must be {MAX_LEVELS} at most, got {len(levels)}; {use}")
    return levels


def _to_threshold(value: Any) -> Any:
    if value == MEASURED or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"must lie between 0 and 1, got {value}; use for example 0.5")
    raise ValueError(f"must be a number between 0 and 1, or {MEASURED}, got {value!r}; use {MEASURED}")


Threshold = Annotated[
    float | Literal["measured"],
    BeforeValidator(_to_threshold, json_schema_input_type=Annotated[float, Field(gt=0, lt=1)] | Literal["measured"]),
]


def find_weights(init: str) -> Path | None:
    """Return the folder that `init` names, or the file of a language model; None for scratch and pretrain.

    Raises: ValueError where it does not exist, or lacks a file.
    """
    kind, _, name = init.partition(":")
    if kind not in ("package", "dir"):
        return None
    folder = Path(name)
    if kind == "package":
        package, _, inner = name.partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"must name an installed package, and {package!r} is not; pip install it, or correct it")
        folder = Path(spec.submodule_search_locations[0]) / inner
    if folder.suffix == LANGUAGE_FILE:
        if not folder.is_file():
            raise ValueError(f"must name a file that exists, and {str(folder)!r} does not; correct the path")
        return folder
    if not folder.is_dir():
        raise ValueError(f"must name a folder that exists, and {str(folder)!r} does not; correct the path")
    missing = [file for file in WEIGHT_FILES if not (folder / file).exists()]
    if missing:
        raise ValueError(
            f"must name a folder with {', '.join(WEIGHT_FILES)}, and {str(folder)!r} lacks {', '.join(missing)}; "
            "use a folder of BERT-family weights"
        )
    return folder
