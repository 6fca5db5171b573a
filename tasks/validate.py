"""Cast the raw rows and labels, judge them with Great Expectations, and part valid from quarantined.

A failed `critical` expectation stops the run. Rows that break a `warning` expectation, a declared type or the
key go to data/quarantine with their reasons; `info` is reported only. For every date, rows in are rows valid
plus rows quarantined. Reasons name column and rule, never a value. Cells that a person corrected, and days that one
accepted, are read from decisions/.

A day that was judged keeps its verdict until its rows, its corrections or the rules are others: what was found of it is
in a ledger beside the valid rows, and a night reads what is new. All that is written is what judging everything anew
would write, byte for byte.

A scored day that differs in kind from the days before it stops the run, and is held until a person answers: until
then its rows lie in quarantine in every later run, which goes on without them.
"""

from dataclasses import replace
from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.quality.checks import Check
from tasks.quality.duplicates.key_index import KeyIndex
from tasks.quality.duplicates.repeats import Repeats
from tasks.quality.expectations import columns_of
from tasks.quality.judging import DayJudge
from tasks.quality.ledger import KEYS
from tasks.quality.raw_tables import LabelsTable, RowsTable
from tasks.quality.report import ValidationReport, ValidationSummary, losses_of
from tasks.quality.stops import stop_on_drift, stop_on_failure, stop_on_loss
from tasks.quality.trust import carry_on
from tasks.rows.corrections import Delivered
from tasks.rows.decisions import accepted_days, known_corrections
from tasks.rows.partitions import Partitions
from tasks.rows.raw_archive import RawIndex
from tasks.rows.versions import History
from tasks.runtime.files import atomic_folder, write_json
from tasks.runtime.paths import TABLES, Paths


def validate(product: Product, as_of: date) -> str:
    """Bring data/valid and data/quarantine up to as_of, and write the report.

    Raises UserError when a critical expectation fails, an expectation cannot be evaluated, or the day differs in kind.
    """
    paths, scored_day = Paths(product.name), product.scored_day(as_of)
    about_target = [e for e in product.expectations if product.target.name in columns_of(e.kwargs)]
    about_rows = [e for e in product.expectations if e not in about_target]
    index = RawIndex.load(paths.raw)
    first_load = date.fromisoformat(index.first_as_of) if index.first_as_of else as_of
    rows_table, labels_table = _tables(product, as_of, paths, index)
    days, accepted = rows_table.delivered.days(scored_day), accepted_days(product.name)
    judge = DayJudge(product, scored_day, product.scored_day(first_load), days, accepted, about_rows)
    # The ledger, among the valid rows, says which files of both folders count: so they take their places last.
    with atomic_folder(paths.valid) as valid, atomic_folder(paths.quarantine) as bad:
        ledger, distrusted = carry_on(product, as_of, paths, valid, bad)
        keys = KeyIndex(valid / KEYS)
        labels_table = replace(labels_table, rows=Partitions(valid / "rows"))
        for table, expectations, last, first_whole, repeats, by in (
            (rows_table, about_rows, scored_day, judge.first_judged, Repeats(rows_table, keys), judge),
            (labels_table, about_target, as_of, min(first_load, as_of), Repeats(labels_table, None), None),
        ):
            kind = table.delivered.table
            stored = Partitions(valid / kind), Partitions(bad / kind)
            Check(table, expectations, ledger, *stored, last, first_whole, repeats, by).run(distrusted[kind])
            for folder in stored:
                folder.compact(last)
        rows = ValidationSummary.of(ledger.days["rows"], about_rows, scored_day, judge.left_behind)
        labels = ValidationSummary.of(ledger.days["labels"], about_target, as_of)
        anew = index.anew if index.first_as_of == as_of.isoformat() else None
        report = ValidationReport.of(as_of, rows, labels, judge.drift, judge.held, anew)
        report_file = paths.report("validation.json")
        write_json(report_file, report.to_json())
        stop_on_failure(product, report.expectations, report_file)
        stop_on_loss(product, "rows", rows, paths.raw)
        stop_on_loss(product, "labels", labels, paths.raw)
        stop_on_drift(product, judge.drift, report_file)
        losses_of(rows, labels, product.target.name).write(bad)
        judge.note(ledger)
        ledger.as_of = as_of.isoformat()
        ledger.save(valid, bad)
    return report.summary


def _tables(product: Product, as_of: date, paths: Paths, index: RawIndex) -> tuple[RowsTable, LabelsTable]:
    """Return raw rows and labels as they are known on as_of, with the corrections that are."""
    history, corrections = History(paths.raw, as_of, index), known_corrections(product.name, as_of)
    rows, labels = (Delivered(name, paths.raw, history, corrections) for name in TABLES)
    return RowsTable(product, rows), LabelsTable(product, labels)


if __name__ == "__main__":
    stage.main(validate)
