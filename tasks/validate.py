"""Cast the raw rows and labels, judge them with Great Expectations, and part valid from quarantined.

A failed `critical` expectation stops the run. Rows that break a `warning` expectation, a declared type or the
key go to data/quarantine with their reasons; `info` is reported only. For every date, rows in are rows valid
plus rows quarantined. Reasons name column and rule, never a value. Cells that a person corrected, and days that one
accepted, are read from decisions/.

A scored day that differs in kind from the days before it stops the run, and is held until a person answers: until
then its rows lie in quarantine in every later run, which goes on without them.
"""

from datetime import date
from pathlib import Path

import pandas as pd

from tasks import stage
from tasks.params import Product
from tasks.quality.checks import check_partitions
from tasks.quality.expectations import columns_of
from tasks.quality.judging import DayJudge
from tasks.quality.raw_tables import LabelsTable, RowsTable
from tasks.quality.report import ValidationReport
from tasks.quality.stops import stop_on_drift, stop_on_failure, stop_on_loss
from tasks.rows.corrections import read_corrected
from tasks.rows.decisions import accepted_days, known_corrections
from tasks.rows.partitions import partition_day, partitions
from tasks.rows.raw_archive import RawIndex
from tasks.runtime.files import atomic_folder, write_json
from tasks.runtime.paths import Paths


def validate(product: Product, as_of: date) -> str:
    """Write data/valid, data/quarantine and the report.

    Raises UserError when a critical expectation fails, an expectation cannot be evaluated, or the day differs in kind.
    """
    paths, scored_day = Paths(product.name), product.scored_day(as_of)
    report_file = paths.report("validation.json")
    about_target = [e for e in product.expectations if product.target.name in columns_of(e.kwargs)]
    about_rows = [e for e in product.expectations if e not in about_target]
    corrections = known_corrections(product.name, as_of)

    def read(files: list[Path], columns: list[str]) -> pd.DataFrame:
        return read_corrected(files, corrections, columns)

    rows_table, rows_files = RowsTable(product, read), partitions(paths.raw / "rows", scored_day)
    labels_table, labels_files = LabelsTable(product, read), partitions(paths.raw / "labels", as_of)
    index = RawIndex.load(paths.raw)
    first_load = index.first_as_of
    anew = index.anew if first_load == as_of.isoformat() else None
    judge = DayJudge(
        product,
        scored_day,
        product.scored_day(date.fromisoformat(first_load)) if first_load else None,
        [partition_day(file) for file in rows_files],
        accepted_days(product.name),
    )
    with atomic_folder(paths.valid) as valid, atomic_folder(paths.quarantine) as bad:
        rows = check_partitions(rows_files, rows_table, about_rows, valid / "rows", bad / "rows.parquet", judge)
        labels = check_partitions(labels_files, labels_table, about_target, valid / "labels", bad / "labels.parquet")
        drift = judge.finish()
        report = ValidationReport.of(as_of.isoformat(), rows, labels, drift, judge.held, anew)
        write_json(report_file, report.to_json())
        stop_on_failure(product, report.expectations, report_file)
        stop_on_loss(product, "rows", rows, paths.raw)
        stop_on_loss(product, "labels", labels, paths.raw)
        stop_on_drift(product, drift, report_file)
    return report.summary


if __name__ == "__main__":
    stage.main(validate)
