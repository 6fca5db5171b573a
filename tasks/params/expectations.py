"""Expectations of a product, checked against the JSON schemas that Great Expectations ships, without importing it."""

import difflib
import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from model.settings import STRICT
from tasks.runtime.errors import UserError

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[str, ...] = get_args(Severity)
ROW_BY_ROW = frozenset(
    f"expect_{name}"
    for name in (
        "column_values_to_be_null",
        "column_values_to_not_be_null",
        "column_values_to_be_in_set",
        "column_values_to_not_be_in_set",
        "column_values_to_be_between",
        "column_values_to_match_regex",
        "column_values_to_not_match_regex",
        "column_values_to_match_regex_list",
        "column_values_to_not_match_regex_list",
        "column_values_to_match_strftime_format",
        "column_values_to_be_dateutil_parseable",
        "column_values_to_be_json_parseable",
        "column_values_to_match_json_schema",
        "column_value_lengths_to_be_between",
        "column_value_lengths_to_equal",
        "column_pair_values_to_be_equal",
        "column_pair_values_to_be_in_set",
        "column_pair_values_a_to_be_greater_than_b",
        "multicolumn_sum_to_equal",
        "multicolumn_values_to_be_equal",
        "select_column_values_to_be_unique_within_record",
    )
)
"""Expectations that judge each row by itself. Others are about a whole column or table, of a day or of several."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Expectation:
    """One expectation in the vocabulary of Great Expectations."""

    type: Annotated[str, Field(examples=["expect_column_values_to_not_be_null"])]
    """Its name in snake case, such as expect_column_values_to_be_between."""
    kwargs: Annotated[dict[str, Any], Field(examples=[{"column": "weight_kg"}])]
    """Its arguments, such as column, min_value and mostly."""
    severity: Severity = "critical"
    """critical: a failure stops the run. warning: bad rows go to quarantine. info: reported only."""
    window_days: Annotated[int, Field(ge=1, examples=[7])] | None = None
    """Of an expectation about a whole column or table, such as a mean or that cells are unique: how many days it is
    judged on together, the scored day and those before it (of labels: the days on which they became known, up to
    as_of). It is never judged on all history. Default: 1, the day alone. Not for one that judges each row by itself."""

    @property
    def is_row_by_row(self) -> bool:
        """Return whether each row is judged by itself."""
        return self.type in ROW_BY_ROW

    def __post_init__(self) -> None:
        mistakes = _mistakes_by_schema(self)
        if self.window_days is not None and self.is_row_by_row:
            mistakes.append(
                f"window_days must be left out where each row is judged by itself, as by {self.type}, "
                f"got {self.window_days}; remove it"
            )
        if mistakes:
            raise ValueError("\n".join(mistakes))


def columns_named(kwargs: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the (argument, column) pairs among an expectation's arguments."""
    named = [(name, kwargs[name]) for name in ("column", "column_A", "column_B") if isinstance(kwargs.get(name), str)]
    return named + [("column_list", column) for column in kwargs.get("column_list") or []]


def _mistakes_by_schema(expectation: Expectation) -> list[str]:
    known = _schemas()
    if expectation.type not in known:
        near = difflib.get_close_matches(expectation.type, known, 1)
        return [
            f"type must be an expectation of Great Expectations, got {expectation.type!r}; "
            f"use {near[0] if near else 'for example expect_column_values_to_be_between'}"
        ]
    import jsonschema

    schema = json.loads(known[expectation.type].read_text("utf-8"))
    schema["properties"].pop("metadata", None)
    # The step of a form's slider: 0.995 is a share like any other, and 0.29 / 0.01 is no whole number.
    schema["properties"].get("mostly", {}).pop("multipleOf", None)
    given = {**expectation.kwargs, "severity": expectation.severity}
    try:
        lines = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(given)]
    except OverflowError:
        lines = ["a number is too large"]
    return [f"kwargs must fit {expectation.type}, got {expectation.kwargs!r}; {line}" for line in lines]


@cache
def _schemas() -> dict[str, Path]:
    """Return the JSON schemas that Great Expectations ships, by snake-case name."""
    spec = importlib.util.find_spec("great_expectations")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("great-expectations must be installed, and is not; run make setup")
    folder = Path(spec.submodule_search_locations[0]) / "expectations/core/schemas"
    return {_snake_case(path.stem): path for path in sorted(folder.glob("Expect*.json"))}


def _snake_case(camel: str) -> str:
    """Return the name in snake case: ExpectColumnKLDivergence... -> expect_column_kl_divergence..., as GX does it."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", camel).lower()
