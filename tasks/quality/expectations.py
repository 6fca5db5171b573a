"""Evaluate expectations with Great Expectations: the only place that knows its objects."""

from datetime import date
from functools import cache
from typing import Any

import pandas as pd

from tasks.params import Expectation, columns_named
from tasks.quality.checked_table import CheckedTable
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
"""Expectations that judge each row by itself. Others are about a whole column or table: for them all rows are held."""


@cache
def _batch_definition() -> Any:
    """What takes a table to be judged; made once, because it takes a second."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("all")


def evaluate_expectations(judged: CheckedTable, expectations: list[Expectation]) -> list[dict[str, Any]]:
    """Evaluate, blame the rows that break a rule that is not mere information, and return what was seen."""
    if not expectations:
        return []
    import great_expectations as gx

    batch = _batch_definition().get_batch({"dataframe": judged.typed.drop(columns="dt")})
    configured = [_configured(expectation, place, judged.typed) for place, expectation in enumerate(expectations)]
    suite = gx.ExpectationSuite("declared", expectations=configured)
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE", "include_unexpected_rows": False})
    # Great Expectations answers in an order of its own: what could not be evaluated comes first.
    results = {result.expectation_config.meta["place"]: result for result in outcome.results}
    seen = []
    for place, expectation in enumerate(expectations):
        entry, bad = to_outcome(expectation, results[place])
        if expectation.severity != "info" and len(bad):
            judged.blame(pd.Index(bad), entry["columns"], entry["type"])
        seen.append(entry)
    return seen


def _configured(expectation: Expectation, place: int, typed: pd.DataFrame) -> Any:
    """Great Expectations' own object for it, which knows its place among the declared ones."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(
            type=expectation.type,
            kwargs=cast_arguments(expectation.kwargs, typed),
            severity=expectation.severity,
            meta={"place": place},
        ).to_domain_obj()
    except ValueError as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"params.yaml: {expectation.type}: arguments must be what a column can be compared with, got "
            f"{expectation.kwargs}, and {told}; correct them"
        ) from None


def cast_arguments(kwargs: dict[str, Any], typed: pd.DataFrame) -> dict[str, Any]:
    """An expectation's arguments, with the texts that a time column is compared with as times, as its cells are."""

    def of(column: Any, text: Any) -> Any:
        if column not in typed or not pd.api.types.is_datetime64_any_dtype(typed[column]):
            return text
        parsed = parse_time(pd.Series([text], dtype=object))[0]
        return text if pd.isna(parsed) else parsed.to_pydatetime()

    def compared(name: str, value: Any) -> Any:
        match name:
            case "min_value" | "max_value":
                return of(kwargs.get("column"), value)
            case "value_set":
                return [of(kwargs.get("column"), each) for each in value]
            case "value_pairs_set":
                columns = kwargs.get("column_A"), kwargs.get("column_B")
                return [tuple(map(of, columns, pair)) for pair in value]
        return value

    return {name: compared(name, value) for name, value in kwargs.items()}


def merge_outcomes(outcomes: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One expectation's outcomes on several batches as its outcome on all rows, by Great Expectations' own rule."""
    total = dict(outcomes[0])
    failed = [each["error"] for each in outcomes if each["error"]]
    if failed or len(outcomes) == 1:
        return {**total, "success": not failed and total["success"], "error": failed[0] if failed else None}
    for name in ("rows_seen", "rows_missing", "rows_unexpected"):
        total[name] = sum(each[name] for each in outcomes)
    n_judged = total["rows_seen"] - total["rows_missing"]
    n_fitting = n_judged - total["rows_unexpected"]
    total["success"] = n_judged == 0 or n_fitting / n_judged >= total["kwargs"].get("mostly", 1)
    return total


def to_outcome(expectation: Expectation, result: Any) -> tuple[dict[str, Any], list[int]]:
    """One expectation's outcome without any value of a row, and the index labels of the rows that break it."""
    outcome = result.result or {}
    raised = [str(info.get("exception_message")) for info in _exceptions(result.exception_info)]
    entry = {
        "type": expectation.type,
        "columns": "+".join(columns_of(expectation.kwargs)) or "table",
        "severity": expectation.severity,
        "kwargs": expectation.kwargs,  # as declared: Great Expectations makes dates of texts
        "success": bool(result.success),
        "rows_seen": outcome.get("element_count"),
        "rows_missing": outcome.get("missing_count") or 0,
        "rows_unexpected": outcome.get("unexpected_count"),
        "error": raised[0] if raised else None,
    }
    observed = outcome.get("observed_value")
    if "unexpected_count" not in outcome and isinstance(observed, int | float | date) and not pd.isna(observed):
        # Of a table or a whole column, such as its row count or mean.
        entry["observed"] = observed.isoformat() if isinstance(observed, date) else observed
    return entry, list(outcome.get("unexpected_index_list") or [])


def columns_of(kwargs: dict[str, Any]) -> list[str]:
    """Return the columns that an expectation's arguments name."""
    return [column for _, column in columns_named(kwargs)]


def _exceptions(info: Any) -> list[dict[str, Any]]:
    """What was raised while an expectation was evaluated; GX nests it by metric or not."""
    if not isinstance(info, dict):
        return []
    nested = [info] if "raised_exception" in info else [value for value in info.values() if isinstance(value, dict)]
    return [each for each in nested if each.get("raised_exception")]
