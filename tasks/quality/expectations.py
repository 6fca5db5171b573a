"""Evaluate expectations with Great Expectations: the only place that knows its objects, beside its own page of them."""

import gc
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

import pandas as pd

from tasks.params import Expectation, columns_named
from tasks.quality.checked_table import CheckedTable, Kwargs, Outcome
from tasks.rows.casting import parse_time
from tasks.runtime.errors import UserError

SELDOM_USED = ("altair", "scipy.stats")
"""What Great Expectations imports for charts and for tests of distributions alone: a third of its start."""


class _LoadedWhenUsed:
    """Finds the modules that are seldom used, so that each is loaded when something of it is asked for first."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module as it is found anyway, with Python's own lazy loader; None for all others."""
        spec = PathFinder.find_spec(name, path, target) if name in SELDOM_USED else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


@cache
def great_expectations() -> Any:
    """Import Great Expectations, but for what it seldom uses."""
    sys.meta_path.insert(0, _LoadedWhenUsed)
    gc.disable()  # of half a million new objects none is garbage: looking for it takes a tenth of the import
    try:
        return importlib.import_module("great_expectations")
    finally:
        gc.enable()
        sys.meta_path.remove(_LoadedWhenUsed)


@cache
def _batch_definition() -> Any:
    """Return what takes a table to be judged; made once, because it takes a second."""
    gx = great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("all")


@dataclass(frozen=True)
class Finding:
    """What one expectation says of a table."""

    outcome: Outcome
    bad: pd.Index
    """The labels of the rows that break it."""


def evaluate_expectations(typed: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Finding]:
    """Return what each expectation says of a typed table with a RangeIndex."""
    if not expectations:
        return []
    gx = great_expectations()
    batch = _batch_definition().get_batch({"dataframe": typed.drop(columns="dt")})
    configured = [_configured(expectation, place, typed) for place, expectation in enumerate(expectations)]
    suite = gx.ExpectationSuite("declared", expectations=configured)
    result = batch.validate(suite, result_format={"result_format": "COMPLETE", "include_unexpected_rows": False})
    # Great Expectations returns results in an order of its own: those that could not be evaluated come first.
    results = {each.expectation_config.meta["place"]: each for each in result.results}
    found = (to_outcome(expectation, results[place]) for place, expectation in enumerate(expectations))
    return [Finding(outcome, pd.Index(bad)) for outcome, bad in found]


def add_findings(table: CheckedTable, findings: Iterable[Finding]) -> None:
    """Add reasons to the rows that break a rule of more than severity info."""
    for each in findings:
        if each.outcome.severity != "info" and len(each.bad):
            table.add_violation(each.bad, each.outcome.columns, each.outcome.type)


def _configured(expectation: Expectation, place: int, typed: pd.DataFrame) -> Any:
    """Return Great Expectations' own object, which knows its place among the declared ones."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(
            type=expectation.type,
            kwargs=cast_arguments(expectation.kwargs, typed),
            severity=expectation.severity,
            meta={"place": place},
        ).to_domain_obj()
    except ValueError as error:
        message = " ".join(str(error).split())
        raise UserError(
            f"params.yaml: {expectation.type}: arguments must be what a column can be compared with, got "
            f"{expectation.kwargs}, and {message}; correct them"
        ) from None


def cast_arguments(kwargs: Kwargs, typed: pd.DataFrame) -> Kwargs:
    """Return an expectation's arguments, with texts that a time column is compared with as times, like its cells."""

    def as_cell(column: Any, text: Any) -> Any:
        if column not in typed or not pd.api.types.is_datetime64_any_dtype(typed[column]):
            return text
        parsed = parse_time(pd.Series([text], dtype=object))[0]
        return text if pd.isna(parsed) else parsed.to_pydatetime()

    def cast(name: str, value: Any) -> Any:
        match name:
            case "min_value" | "max_value":
                return as_cell(kwargs.get("column"), value)
            case "value_set":
                return [as_cell(kwargs.get("column"), each) for each in value]
            case "value_pairs_set":
                columns = kwargs.get("column_A"), kwargs.get("column_B")
                return [tuple(map(as_cell, columns, pair)) for pair in value]
        return value

    return {name: cast(name, value) for name, value in kwargs.items()}


def to_outcome(expectation: Expectation, result: Any) -> tuple[Outcome, list[int]]:
    """Return Great Expectations' result without any value of a row, and the labels of the rows that break the rule."""
    found = result.result or {}
    errors = [str(info.get("exception_message")) for info in _exceptions(result.exception_info)]
    observed = found.get("observed_value")
    # Of a table or a whole column, such as its row count or mean.
    is_observed = "unexpected_count" not in found and isinstance(observed, int | float | date) and not pd.isna(observed)
    outcome = Outcome(
        type=expectation.type,
        columns="+".join(columns_of(expectation.kwargs)) or "table",
        severity=expectation.severity,
        kwargs=expectation.kwargs,  # as declared: Great Expectations makes dates of texts
        success=bool(result.success),
        rows_seen=found.get("element_count"),
        rows_missing=found.get("missing_count") or 0,
        rows_unexpected=found.get("unexpected_count"),
        error=errors[0] if errors else None,
        observed=(observed.isoformat() if isinstance(observed, date) else observed) if is_observed else None,
    )
    return outcome, list(found.get("unexpected_index_list") or [])


def columns_of(kwargs: Kwargs) -> list[str]:
    """Return the columns that an expectation's arguments name."""
    return [column for _, column in columns_named(kwargs)]


def _exceptions(info: Any) -> list[Mapping[str, object]]:
    """Return what was raised while an expectation was evaluated; GX nests it by metric or not."""
    if not isinstance(info, dict):
        return []
    nested = [info] if "raised_exception" in info else [value for value in info.values() if isinstance(value, dict)]
    return [each for each in nested if each.get("raised_exception")]
