"""Type the raw rows and labels, judge them with Great Expectations, and part valid from quarantined.

A failed `critical` expectation stops the run. Rows that break a `warning` expectation, a declared type or the
key go to data/quarantine with their reasons; `info` is reported only. For every date, rows in are rows valid
plus rows quarantined. Reasons name column and rule, never a value.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd

from tasks import stage
from tasks.errors import UserError
from tasks.files import read_tables, whole_folder, write_json, write_table
from tasks.params import Expectation, Product, columns_named
from tasks.paths import Paths, partition
from tasks.types import cast_column, cast_target


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

    @property
    def is_valid(self) -> pd.Series:
        """True for the rows without a reason."""
        return self.reasons == ""

    def counts_by_date(self) -> dict[str, dict[str, int]]:
        """Rows in, valid and quarantined, for every date."""
        table = pd.DataFrame({"dt": self.delivered["dt"], "valid": self.is_valid})
        groups = table.groupby("dt", sort=True)["valid"].agg(["size", "sum"])
        return {
            str(day): {"rows_in": int(size), "rows_valid": int(valid), "rows_quarantined": int(size - valid)}
            for day, size, valid in groups.itertuples()
        }


def validate(product: Product, as_of: date) -> str:
    """Write data/valid, data/quarantine and the report.

    Raises UserError when a critical expectation fails or an expectation cannot be evaluated.
    """
    paths = Paths(product.name)
    rows = _judge_types(read_tables(paths.raw / "rows", until=product.scored_day(as_of)), product)
    labels = _judge_labels(read_tables(paths.raw / "labels", until=as_of), product)
    about_target = [e for e in product.expectations if product.target.name in _columns(e.kwargs)]
    results = _expect(rows, [e for e in product.expectations if e not in about_target])
    results += _expect(labels, about_target)
    report = _report(product, as_of, rows, labels, results)
    write_json(paths.report("validation.json"), report)
    _stop_on_failure(product, results, paths)
    _write(rows, labels, paths)
    counts = report["rows"]
    return (
        f"{counts['rows_in']:,} rows in = {counts['rows_valid']:,} valid + "
        f"{counts['rows_quarantined']:,} quarantined; {sum(not r['success'] for r in results)} of {len(results)} "
        "expectations failed without stopping the run"
    )


def _judge_types(delivered: pd.DataFrame, product: Product) -> Judged:
    """The rows with declared types; keys must be there once, times must be dates."""
    typed = delivered.copy()
    kinds = _kinds(product)
    misfits = {}
    for name, kind in kinds.items():
        typed[name], misfits[name] = cast_column(delivered[name], kind)
    judged = Judged(delivered, typed)
    for name, misfit in misfits.items():
        judged.blame(misfit, name, f"is no {kinds[name]}")
    judged.blame(delivered[product.time].isna(), product.time, "is missing")
    _judge_key(judged, product)
    return judged


def _kinds(product: Product) -> dict[str, str]:
    return {**dict.fromkeys(product.key, "category"), product.time: "time", **product.columns}


def _judge_labels(delivered: pd.DataFrame, product: Product) -> Judged:
    """The labels with declared types; of several truths about one key the first stands."""
    for name in [*product.key, product.target.name]:
        if name not in delivered:  # no label is known yet
            delivered[name] = pd.Series(dtype="str")
    typed = delivered.copy()
    for name in product.key:
        typed[name], _ = cast_column(delivered[name], _kinds(product)[name])  # as in the rows, to join them
    typed[product.target.name], misfit = cast_target(delivered[product.target.name], product.target)
    judged = Judged(delivered, typed)
    judged.blame(misfit, product.target.name, f"is no {product.target.task} target")
    _judge_key(judged, product)
    return judged


def _judge_key(judged: Judged, product: Product) -> None:
    key = list(product.key)
    missing = judged.typed[key].isna().any(axis=1)
    judged.blame(missing, "+".join(key), "is missing")
    judged.blame(judged.typed.duplicated(key, keep="first") & ~missing, "+".join(key), "is a key already seen")


def _expect(judged: Judged, expectations: list[Expectation]) -> list[dict[str, Any]]:
    """Evaluate, blame the rows that break a rule that is not mere information, and return what was seen."""
    if not expectations:
        return []
    import great_expectations as gx
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    table = judged.typed.drop(columns="dt").reset_index(drop=True)
    batch = (
        context.data_sources.add_pandas("pandas")
        .add_dataframe_asset("table")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": table})
    )
    suite = gx.ExpectationSuite(
        "declared",
        expectations=[
            ExpectationConfiguration(type=e.type, kwargs=e.kwargs, severity=e.severity) for e in expectations
        ],
    )
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE", "include_unexpected_rows": False})
    seen = []
    for result in outcome.results:
        config = result.expectation_config
        severity = str(getattr(config.severity, "value", config.severity))
        entry, bad = _seen(result, severity)
        if severity != "info" and len(bad):
            judged.blame(pd.Index(bad), entry["columns"], entry["type"])
        seen.append(entry)
    return seen


def _seen(result: Any, severity: str) -> tuple[dict[str, Any], list[int]]:
    """One expectation's outcome without any value of a row, and the index labels of the rows that break it."""
    config, outcome = result.expectation_config, result.result or {}
    kwargs = {name: value for name, value in config.kwargs.items() if name != "batch_id"}
    raised = [str(info.get("exception_message")) for info in _exceptions(result.exception_info)]
    entry = {
        "type": config.type,
        "columns": "+".join(_columns(kwargs)) or "table",
        "severity": severity,
        "kwargs": kwargs,
        "success": bool(result.success),
        "rows_seen": outcome.get("element_count"),
        "rows_unexpected": outcome.get("unexpected_count"),
        "error": raised[0] if raised else None,
    }
    if "unexpected_count" not in outcome and isinstance(outcome.get("observed_value"), int | float):
        entry["observed"] = outcome["observed_value"]  # of a table or a whole column, such as its row count or mean
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
            )
            for r in failures
        ]
        raise UserError(
            f"products.{product.name}: {len(failures)} expectations do not hold, and nothing was passed on:\n"
            + "\n".join(lines)
            + f"\nLook at {paths.report('validation.json')}; mend the source, "
            "or the expectation in params.yaml"
        )


def _report(
    product: Product, as_of: date, rows: Judged, labels: Judged, results: list[dict[str, Any]]
) -> dict[str, Any]:
    by_date = rows.counts_by_date()
    totals = {
        kind: {
            name: sum(day[name] for day in judged.counts_by_date().values())
            for name in ("rows_in", "rows_valid", "rows_quarantined")
        }
        for kind, judged in (("rows", rows), ("labels", labels))
    }
    for name, judged in (("rows", rows), ("labels", labels)):
        assert totals[name]["rows_in"] == len(judged.delivered), "every delivered row must be accounted for"
    nothing = {"rows_in": 0, "rows_valid": 0, "rows_quarantined": 0}
    scored = by_date.get(product.scored_day(as_of).isoformat(), nothing)
    reasons = pd.concat([rows.reasons, labels.reasons]).str.split("; ").explode()
    return {
        "as_of": as_of.isoformat(),
        "rows": totals["rows"],
        "labels": totals["labels"],
        "scored_day": {"date": product.scored_day(as_of).isoformat(), **scored},
        "reasons": {str(reason): int(n) for reason, n in reasons[reasons != ""].value_counts().sort_index().items()},
        "expectations": results,
        "rows_by_date": by_date,
        "labels_by_date": labels.counts_by_date(),
    }


def _write(rows: Judged, labels: Judged, paths: Paths) -> None:
    with whole_folder(paths.valid) as valid, whole_folder(paths.quarantine) as quarantine:
        for kind, judged in (("rows", rows), ("labels", labels)):
            (valid / kind).mkdir()
            for day, group in judged.typed[judged.is_valid].groupby("dt", sort=True):
                write_table(partition(valid / kind, date.fromisoformat(str(day))), group.drop(columns="dt"))
            bad = judged.delivered[~judged.is_valid]
            # As text, because a column that holds both numbers and words has no other common type.
            kept = bad.astype("str").where(bad.notna(), None).assign(reasons=judged.reasons[~judged.is_valid])
            write_table(quarantine / f"{kind}.parquet", kept.astype("str"))


if __name__ == "__main__":
    stage.main(validate)
