"""Type the raw rows and labels, judge them with Great Expectations, and part valid from quarantined.

A failed `critical` expectation stops the run. Rows that break a `warning` expectation, a declared type or the
key go to data/quarantine with their reasons; `info` is reported only. For every date, rows in are rows valid
plus rows quarantined. Reasons name column and rule, never a value.
"""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from tasks import stage
from tasks.params import Product
from tasks.quality.checked_table import NOTHING, ValidationSummary
from tasks.quality.checks import check_partitions, typed_labels, typed_rows
from tasks.quality.drift import compare, stop_on_drift
from tasks.quality.expectations import columns_of
from tasks.rows.corrections import known_corrections, read_corrected
from tasks.rows.partitions import partitions
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, write_json
from tasks.runtime.paths import Paths


def validate(product: Product, as_of: date) -> str:
    """Write data/valid, data/quarantine and the report.

    Raises UserError when a critical expectation fails, an expectation cannot be evaluated, or the day differs in kind.
    """
    paths = Paths(product.name)
    about_target = [e for e in product.expectations if product.target.name in columns_of(e.kwargs)]
    about_rows = [e for e in product.expectations if e not in about_target]
    rows_files = partitions(paths.raw / "rows", product.scored_day(as_of))
    labels_files = partitions(paths.raw / "labels", as_of)
    corrections = known_corrections(product.name, as_of)

    def read(files: list[Path], columns: list[str]) -> pd.DataFrame:
        return read_corrected(files, corrections, columns)

    with atomic_folder(paths.valid) as valid, atomic_folder(paths.quarantine) as quarantine:
        rows = check_partitions(
            rows_files, read, typed_rows, about_rows, product, valid / "rows", quarantine / "rows.parquet"
        )
        labels = check_partitions(
            labels_files, read, typed_labels, about_target, product, valid / "labels", quarantine / "labels.parquet"
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


def _report(
    product: Product, as_of: date, rows: ValidationSummary, labels: ValidationSummary, drift: dict[str, Any]
) -> dict[str, Any]:
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


if __name__ == "__main__":
    stage.main(validate)
