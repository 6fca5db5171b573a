"""Evaluate expectations with Great Expectations: the only place that knows its objects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any

import pandas as pd

from tasks.params import Expectation, columns_named
from tasks.quality.checked_table import CheckedTable, Kwargs, Outcome
from tasks.rows.casting import parse_time
from tasks.runtime.errors import UserError

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
"""Expectations that judge each row by itself. Others are about a whole column or table and need all rows in memory."""


@cache
def _batch_definition() -> Any:
    """Return what takes a table to be judged; made once, because it takes a second."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("all")


def evaluate_expectations(checked: CheckedTable, expectations: list[Expectation]) -> list[Outcome]:
    """Return the outcomes, and add violations to the rows that break a rule of more than severity info."""
    if not expectations:
        return []
    import great_expectations as gx

    batch = _batch_definition().get_batch({"dataframe": checked.typed.drop(columns="dt")})
    configured = [_configured(expectation, place, checked.typed) for place, expectation in enumerate(expectations)]
    suite = gx.ExpectationSuite("declared", expectations=configured)
    result = batch.validate(suite, result_format={"result_format": "COMPLETE", "include_unexpected_rows": False})
    # Great Expectations returns results in an order of its own: those that could not be evaluated come first.
    results = {each.expectation_config.meta["place"]: each for each in result.results}
    outcomes = []
    checked.unexpected = []
    for place, expectation in enumerate(expectations):
        outcome, bad = to_outcome(expectation, results[place])
        checked.unexpected.append(pd.Index(bad))
        if expectation.severity != "info" and len(bad):
            checked.add_violation(pd.Index(bad), outcome.columns, outcome.type)
        outcomes.append(outcome)
    return outcomes


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


def merge_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Return one expectation's outcome on all rows from those on its batches, by Great Expectations' own rule."""
    first = outcomes[0]
    errors = [each.error for each in outcomes if each.error]
    if errors or len(outcomes) == 1:
        return replace(first, success=not errors and first.success, error=errors[0] if errors else None)
    n_seen = sum(each.rows_seen or 0 for each in outcomes)
    n_missing = sum(each.rows_missing for each in outcomes)
    n_unexpected = sum(each.rows_unexpected or 0 for each in outcomes)
    n_judged = n_seen - n_missing
    return replace(
        first,
        success=n_judged == 0 or (n_judged - n_unexpected) / n_judged >= first.kwargs.get("mostly", 1),
        rows_seen=n_seen,
        rows_missing=n_missing,
        rows_unexpected=n_unexpected,
    )


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
