"""Type the raw rows and labels, judge them with Great Expectations, and part valid from quarantined.

A failed `critical` expectation stops the run. Rows that break a `warning` expectation, a declared type or the
key go to data/quarantine with their reasons; `info` is reported only. For every date, rows in are rows valid
plus rows quarantined. Reasons name column and rule, never a value.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks import stage
from tasks.corrections import known_corrections, names, read_corrected
from tasks.drift import compare, stop_on_drift
from tasks.errors import UserError
from tasks.files import n_rows, partitions, read_table, table_writer, whole_folder, write_json, write_table
from tasks.keys import digests, key_text, seen_before
from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, Expectation, Product, columns_named
from tasks.paths import Paths, partition
from tasks.types import cast_column, cast_target, event_day, parse_time

ROWS_JUDGED_AT_ONCE = 250_000
"""Dates are judged together up to so many rows: each batch costs Great Expectations about 0.3 s, and memory."""

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


@dataclass
class Judged:
    """A typed table and, for each of its rows, the rules that it breaks."""

    delivered: pd.DataFrame
    """As it came, with its date as `dt`; a RangeIndex."""
    typed: pd.DataFrame
    """The same rows with declared types."""
    reasons: pd.Series = field(init=False)
    """`column: rule` texts joined by `; `, empty for a valid row."""

    def __post_init__(self) -> None:
        self.reasons = pd.Series("", index=self.delivered.index, dtype=object)

    def blame(self, bad: "pd.Series | pd.Index", column: str, rule: str) -> None:
        """Add a reason to the rows of `bad` (a boolean mask, or index labels)."""
        index = bad[bad].index if isinstance(bad, pd.Series) else bad
        earlier = self.reasons[index]
        self.reasons[index] = earlier.where(earlier == "", earlier + "; ") + f"{column}: {rule}"

    def blame_also(self, reasons: pd.Series) -> None:
        """Add the reasons found elsewhere for the same rows, in the same order."""
        found = reasons[reasons != ""]
        for reason, index in found.groupby(found).groups.items():
            column, _, rule = str(reason).partition(": ")
            self.blame(pd.Index(index), column, rule)

    @property
    def is_valid(self) -> pd.Series:
        """True for the rows without a reason."""
        return self.reasons == ""


@dataclass
class Tally:
    """What was seen of all rows, or of all labels, without the rows themselves."""

    by_date: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows in, valid and quarantined."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many rows break each rule."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """The outcome of each expectation, in the order declared."""
    n_corrected: int = 0
    """Rows that hold what a person corrected."""

    def count(self, judged: "Judged") -> None:
        """Add whole dates that have been judged."""
        self.n_corrected += int(judged.delivered[RAW_ROW].notna().sum())
        table = pd.DataFrame({"dt": judged.delivered["dt"], "valid": judged.is_valid})
        groups = table.groupby("dt", sort=True)["valid"].agg(["size", "sum"])
        for day, size, valid in groups.itertuples():
            counts = {"rows_in": int(size), "rows_valid": int(valid), "rows_quarantined": int(size - valid)}
            self.by_date[str(day)] = counts
        for reasons, n in judged.reasons[~judged.is_valid].value_counts().items():
            self.reasons.update(dict.fromkeys(str(reasons).split("; "), int(n)))

    @property
    def totals(self) -> dict[str, int]:
        """The sums over the dates."""
        return {kind: sum(day[kind] for day in self.by_date.values()) for kind in NOTHING}


Read = Callable[[list[Path], list[str]], pd.DataFrame]
"""Reads some columns of files of dates: `tasks.corrections.read_corrected` with its corrections."""
NOTHING = {"rows_in": 0, "rows_valid": 0, "rows_quarantined": 0}


def validate(product: Product, as_of: date) -> str:
    """Write data/valid, data/quarantine and the report.

    Raises UserError when a critical expectation fails, an expectation cannot be evaluated, or the day differs in kind.
    """
    paths = Paths(product.name)
    about_target = [e for e in product.expectations if product.target.name in _columns(e.kwargs)]
    about_rows = [e for e in product.expectations if e not in about_target]
    rows_files = partitions(paths.raw / "rows", product.scored_day(as_of))
    labels_files = partitions(paths.raw / "labels", as_of)
    corrections = known_corrections(product.name, as_of)

    def read(files: list[Path], columns: list[str]) -> pd.DataFrame:
        return read_corrected(files, corrections, columns)

    with whole_folder(paths.valid) as valid, whole_folder(paths.quarantine) as quarantine:
        rows = _judge(rows_files, read, _typed_rows, about_rows, product, valid / "rows", quarantine / "rows.parquet")
        labels = _judge(
            labels_files, read, _typed_labels, about_target, product, valid / "labels", quarantine / "labels.parquet"
        )
        drift = compare(product, as_of, valid / "rows", rows.by_date)
        report = _report(product, as_of, rows, labels, drift)
        write_json(paths.report("validation.json"), report)
        _stop_on_failure(product, report["expectations"], paths)
        stop_on_drift(product, drift, paths.report("validation.json"))
    counts = report["rows"]
    return (
        f"{counts['rows_in']:,} rows in = {counts['rows_valid']:,} valid + "
        f"{counts['rows_quarantined']:,} quarantined; {sum(not r['success'] for r in report['expectations'])} of "
        f"{len(report['expectations'])} expectations failed without stopping the run"
    )


def _judge(
    files: list[Path],
    read: Read,
    typed: Callable[[list[Path], Read, Product], Judged],
    expectations: list[Expectation],
    product: Product,
    valid: Path,
    quarantine: Path,
) -> Tally:
    """Judge the files of dates, a few dates at a time, and write what is valid and what is not."""
    valid.mkdir()
    tally = Tally()
    row_by_row = [e for e in expectations if e.type in ROW_BY_ROW]
    about_all = [e for e in expectations if e.type not in ROW_BY_ROW]
    seen, found_in_all = _judge_all(files, read, typed, about_all, product)
    of_rows = [product.time, UNREADABLE_COLUMNS[0]] if typed is _typed_rows else []
    again = _keys_again(files, read, product, of_rows)
    seen_by_row = []
    first = 0
    with table_writer(quarantine) as write_bad:
        for some in _some_dates(files):
            judged = typed(some, read, product)
            here = slice(first, first := first + len(judged.delivered))
            judged.blame(pd.Series(again[here]), "+".join(product.key), "is a key already seen")
            seen_by_row.append(_expect(judged, row_by_row))
            judged.blame_also(found_in_all.iloc[here].reset_index(drop=True))
            tally.count(judged)
            _write(judged, some, product, valid, write_bad)
    assert tally.totals["rows_in"] == len(again), "every delivered row must be accounted for"
    sums = iter([_summed(outcomes) for outcomes in zip(*seen_by_row, strict=True)])
    of_all = iter(seen)
    tally.results = [next(sums if e.type in ROW_BY_ROW else of_all) for e in expectations]
    return tally


def _judge_all(
    files: list[Path],
    read: Read,
    typed: Callable[[list[Path], Read, Product], Judged],
    expectations: list[Expectation],
    product: Product,
) -> tuple[list[dict[str, Any]], pd.Series]:
    """Outcomes of the expectations that need all rows at once, and the reasons that they give each row."""
    if not expectations:
        return [], pd.Series("", index=range(sum(map(n_rows, files))), dtype=object)
    judged = typed(files, read, product)
    judged = Judged(judged.delivered, judged.typed)
    return _expect(judged, expectations), judged.reasons


def _keys_again(files: list[Path], read: Read, product: Product, more: Sequence[str]) -> np.ndarray:
    """For every row of the files in order, whether an earlier one has its key; False where a key is missing.

    A row that is none, as it cannot be read or has no date, takes nobody's key.
    """
    found, stands = [np.empty((0, 2), np.uint64)], [np.empty(0, bool)]
    for file in files:
        delivered = read([file], list(dict.fromkeys([*product.key, *more])))
        text = _key_text(delivered, product)
        found.append(digests(text))
        is_one = text.notna()
        if more:
            time, unreadable = (delivered[name] for name in more)
            is_one &= parse_time(time).notna() & unreadable.isna()
        stands.append(is_one.to_numpy())
    again, stood = np.zeros(sum(map(len, found)), bool), np.concatenate(stands)
    again[stood] = seen_before(np.concatenate(found)[stood])
    return again


def _key_text(delivered: pd.DataFrame, product: Product) -> pd.Series:
    kinds = product.kinds
    return key_text(
        pd.DataFrame({name: cast_column(delivered[name], kinds[name])[0] for name in product.key}), product.key
    )


def _some_dates(files: list[Path]) -> Iterator[list[Path]]:
    """The files in order, as many together as ROWS_JUDGED_AT_ONCE admits; once no file if there is none."""
    some: list[Path] = []
    n_some = 0
    for file in files:
        n_file = n_rows(file)
        if some and n_some + n_file > ROWS_JUDGED_AT_ONCE:
            yield some
            some, n_some = [], 0
        some.append(file)
        n_some += n_file
    yield some


def _typed_rows(files: list[Path], read: Read, product: Product) -> Judged:
    """The rows with declared types; a key must be there, and a time be a date."""
    delivered = read(files, [*product.input_columns, *UNREADABLE_COLUMNS])
    typed = delivered.drop(columns=[*UNREADABLE_COLUMNS, RAW_ROW])
    kinds = product.kinds
    misfits = {}
    for name, kind in kinds.items():
        typed[name], misfits[name] = cast_column(delivered[name], kind)
    judged = Judged(delivered, typed)
    unreadable = delivered[UNREADABLE_COLUMNS[0]]  # column and rule, as `tasks.fetch` tells them
    judged.reasons = unreadable.where(unreadable.notna(), "").astype(object)
    for name, misfit in misfits.items():
        judged.blame(misfit, name, f"is no {kinds[name]}")
    judged.blame(delivered[product.time].isna(), product.time, "is missing")
    moved = delivered[RAW_ROW].notna() & (event_day(typed[product.time]).fillna(delivered["dt"]) != delivered["dt"])
    judged.blame(moved, product.time, "was corrected to another day than that under which the row arrived")
    _blame_missing_keys(judged, product)
    return judged


def _typed_labels(files: list[Path], read: Read, product: Product) -> Judged:
    """The labels with declared types; of several truths about one key the first stands."""
    delivered = read(files, [*product.key, product.target.name])
    typed = delivered.drop(columns=RAW_ROW)
    for name in product.key:
        typed[name], _ = cast_column(delivered[name], product.kinds[name])  # as in the rows, to join them
    typed[product.target.name], misfit = cast_target(delivered[product.target.name], product.target)
    judged = Judged(delivered, typed)
    judged.blame(misfit, product.target.name, f"is no {product.target.task} target")
    _blame_missing_keys(judged, product)
    return judged


def _blame_missing_keys(judged: Judged, product: Product) -> None:
    key = list(product.key)
    judged.blame(judged.typed[key].isna().any(axis=1), "+".join(key), "is missing")


@cache
def _batch_definition() -> Any:
    """What takes a table to be judged; made once, because it takes a second."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("table")
    return asset.add_batch_definition_whole_dataframe("all")


def _expect(judged: Judged, expectations: list[Expectation]) -> list[dict[str, Any]]:
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
        entry, bad = _seen(expectation, results[place])
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
            kwargs=_comparable(expectation.kwargs, typed),
            severity=expectation.severity,
            meta={"place": place},
        ).to_domain_obj()
    except ValueError as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"params.yaml: {expectation.type}: arguments must be what a column can be compared with, got "
            f"{expectation.kwargs}, and {told}; correct them"
        ) from None


def _comparable(kwargs: dict[str, Any], typed: pd.DataFrame) -> dict[str, Any]:
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


def _summed(outcomes: tuple[dict[str, Any], ...]) -> dict[str, Any]:
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


def _seen(expectation: Expectation, result: Any) -> tuple[dict[str, Any], list[int]]:
    """One expectation's outcome without any value of a row, and the index labels of the rows that break it."""
    outcome = result.result or {}
    raised = [str(info.get("exception_message")) for info in _exceptions(result.exception_info)]
    entry = {
        "type": expectation.type,
        "columns": "+".join(_columns(expectation.kwargs)) or "table",
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


def _columns(kwargs: dict[str, Any]) -> list[str]:
    return [column for _, column in columns_named(kwargs)]


def _exceptions(info: Any) -> list[dict[str, Any]]:
    """What was raised while an expectation was evaluated; GX nests it by metric or not."""
    if not isinstance(info, dict):
        return []
    nested = [info] if "raised_exception" in info else [value for value in info.values() if isinstance(value, dict)]
    return [each for each in nested if each.get("raised_exception")]


def _stop_on_failure(product: Product, results: list[dict[str, Any]], paths: Paths) -> None:
    failures = [r for r in results if r["error"] or (r["severity"] == "critical" and not r["success"])]
    if failures:
        lines = [
            f"  {r['type']} on {r['columns']} ({r['severity']}): "
            + (
                f"could not be evaluated: {r['error']}"
                if r["error"]
                else f"observed {r['observed']}, wanted {r['kwargs']}"
                if "observed" in r
                else f"{r['rows_unexpected']} of {r['rows_seen']} rows break it, wanted {r['kwargs']}"
                if r["rows_seen"] is not None
                else f"wanted {r['kwargs']}"
            )
            for r in failures
        ]
        raise UserError(
            f"products.{product.name}: {len(failures)} expectations do not hold, and nothing was passed on:\n"
            + "\n".join(lines)
            + f"\nLook at {paths.report('validation.json')}; mend the expectation in params.yaml, or mend the source "
            f'and have the day fetched anew: make retake PRODUCT={product.name} DT=... REASON="what was wrong"'
        )


def _report(product: Product, as_of: date, rows: Tally, labels: Tally, drift: dict[str, Any]) -> dict[str, Any]:
    scored = product.scored_day(as_of).isoformat()
    return {
        "as_of": as_of.isoformat(),
        "rows": rows.totals,
        "labels": labels.totals,
        "scored_day": {"date": scored, **rows.by_date.get(scored, NOTHING)},
        "corrected": {"rows": rows.n_corrected, "labels": labels.n_corrected},
        "drift": drift,
        "reasons": dict(sorted((rows.reasons + labels.reasons).items())),
        "expectations": rows.results + labels.results,
        "rows_by_date": rows.by_date,
        "labels_by_date": labels.by_date,
    }


def _write(
    judged: Judged, files: list[Path], product: Product, valid: Path, write_bad: Callable[[pd.DataFrame], None]
) -> None:
    """Each date's valid rows in order of key, so that nothing after this depends on the order of arrival."""
    for day, group in judged.typed[judged.is_valid].groupby("dt", sort=True):
        ordered = group.drop(columns="dt").sort_values(list(product.key))
        write_table(partition(valid, date.fromisoformat(str(day))), ordered)
    bad = judged.delivered.assign(**{RAW_ROW: _named(judged, files)})[~judged.is_valid]
    # As text, because a column that holds both numbers and words has no other common type.
    kept = bad.astype("str").where(bad.notna(), None).assign(reasons=judged.reasons[~judged.is_valid])
    write_bad(kept.astype("str"))


def _named(judged: Judged, files: list[Path]) -> pd.Series:
    """What the rows in quarantine are called, by the files that they lie in.

    Those corrected are named again beside them: of equal rows all after one in quarantine are one or the other.
    """
    given = judged.delivered[RAW_ROW]
    needed = (~judged.is_valid | given.notna()).to_numpy()
    made: list[str] = []
    first = 0
    for file in files:
        here = needed[first : (first := first + n_rows(file))]
        made += names(read_table(file)[here]) if here.any() else []
    return given.where(given.notna(), pd.Series(made, given.index[needed], dtype=object))


if __name__ == "__main__":
    stage.main(validate)
