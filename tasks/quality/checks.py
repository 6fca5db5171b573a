"""Check partitions of rows or labels: types, keys, duplicates and the product's expectations."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.params import RAW_ROW, Expectation
from tasks.quality.checked_table import CheckedTable, Outcome, ValidationSummary
from tasks.quality.expectations import ROW_BY_ROW, evaluate_expectations, merge_outcomes
from tasks.quality.judging import DayJudge, without_days
from tasks.quality.raw_tables import RawTable
from tasks.rows.corrections import raw_row_ids
from tasks.rows.keys import digests, seen_before
from tasks.rows.partitions import n_rows, partition, partition_day, read_table, table_writer, write_table

ROWS_CHECKED_AT_ONCE = 250_000
"""Dates are checked together up to so many rows: each batch costs Great Expectations about 0.3 s, and memory."""


def check_partitions(
    files: list[Path],
    table: RawTable,
    expectations: list[Expectation],
    valid: Path,
    quarantine: Path,
    judge: DayJudge | None = None,
) -> ValidationSummary:
    """Check partitions, a few dates at a time, and write the valid rows by date and the others to one file.

    `judge` holds back the rows of days that differ in kind. Outcomes are about the days that this run goes on with.
    """
    valid.mkdir()
    summary = ValidationSummary()
    by_row = [place for place, e in enumerate(expectations) if e.type in ROW_BY_ROW]
    by_table = [place for place, e in enumerate(expectations) if e.type not in ROW_BY_ROW]
    whole_outcomes, whole_reasons = check_whole_table(files, table, [expectations[place] for place in by_table])
    is_duplicate = find_duplicate_keys(files, table)
    batch_outcomes = []
    first = 0
    with table_writer(quarantine) as write_bad:
        for batch in batch_partitions(files):
            checked = table.checked(batch)
            rows = slice(first, first := first + len(checked.delivered))
            checked.add_violation(pd.Series(is_duplicate[rows]), "+".join(table.product.key), "is a key already seen")
            outcomes = evaluate_expectations(checked, [expectations[place] for place in by_row])
            checked.add_violations(whole_reasons.iloc[rows].reset_index(drop=True))
            if judge:
                judge.judge(checked, [expectations[place] for place in by_row])
                if by_row and judge.left_behind & {*checked.delivered["dt"]}:
                    kept = without_days(checked, judge.left_behind)
                    outcomes = evaluate_expectations(kept, [expectations[place] for place in by_row])
            batch_outcomes.append(outcomes)
            summary.add(checked, judge.left_behind if judge else ())
            _write(checked, batch, list(table.product.key), valid, write_bad)
    assert summary.totals.rows_in == len(is_duplicate), "every delivered row must be accounted for"
    if by_table and judge and judge.left_behind:
        kept_files = [file for file in files if partition_day(file).isoformat() not in judge.left_behind]
        whole_outcomes, _ = check_whole_table(kept_files, table, [expectations[place] for place in by_table])
    row_outcomes = [merge_outcomes(outcomes) for outcomes in zip(*batch_outcomes, strict=True)]
    outcome = dict(zip([*by_table, *by_row], [*whole_outcomes, *row_outcomes], strict=True))
    summary.outcomes = [outcome[place] for place in range(len(expectations))]
    return summary


def check_whole_table(
    files: list[Path], table: RawTable, expectations: list[Expectation]
) -> tuple[list[Outcome], pd.Series]:
    """Return outcomes of the expectations that need all rows at once, and the reasons that they give each row."""
    if not expectations:
        return [], pd.Series("", index=range(sum(map(n_rows, files))), dtype=object)
    checked = table.checked(files)
    checked = CheckedTable(checked.delivered, checked.typed)  # without the reasons of its cells
    return evaluate_expectations(checked, expectations), checked.reasons


def find_duplicate_keys(files: list[Path], table: RawTable) -> np.ndarray:
    """Return for every row of the files in order whether an earlier one took its key. Shapes: bool [n]."""
    found, takes = [np.empty((0, 2), np.uint64)], [np.empty(0, bool)]
    for file in files:
        text, takes_key = table.keys(file)
        found.append(digests(text))
        takes.append(takes_key.to_numpy())
    key, takes_one = np.concatenate(found), np.concatenate(takes)
    is_duplicate = np.zeros(len(key), bool)
    is_duplicate[takes_one] = seen_before(key[takes_one])
    return is_duplicate


def batch_partitions(files: list[Path]) -> Iterator[list[Path]]:
    """Yield the files in order, as many together as ROWS_CHECKED_AT_ONCE admits; once no file if there is none."""
    batch: list[Path] = []
    n_batch = 0
    for file in files:
        n_file = n_rows(file)
        if batch and n_batch + n_file > ROWS_CHECKED_AT_ONCE:
            yield batch
            batch, n_batch = [], 0
        batch.append(file)
        n_batch += n_file
    yield batch


def _write(
    checked: CheckedTable,
    files: list[Path],
    key: list[str],
    valid: Path,
    write_bad: Callable[[pd.DataFrame], None],
) -> None:
    """Write each date's valid rows in order of key, so that no later stage depends on the order of arrival."""
    for day, group in checked.typed[checked.is_valid].groupby("dt", sort=True):
        ordered = group.drop(columns="dt").sort_values(key)
        write_table(partition(valid, date.fromisoformat(str(day))), ordered)
    bad = checked.delivered.assign(**{RAW_ROW: _raw_row_ids(checked, files)})[~checked.is_valid]
    # As text, because a column that holds both numbers and words has no other common type.
    kept = bad.astype("str").where(bad.notna(), None).assign(reasons=checked.reasons[~checked.is_valid])
    write_bad(kept.astype("str"))


def _raw_row_ids(checked: CheckedTable, files: list[Path]) -> pd.Series:
    """Return the ids of the rows in quarantine, by the files that they lie in; None for other rows.

    Corrected rows are counted beside them: equal rows are numbered from the last, and of those after one in quarantine
    all are in quarantine or corrected.
    """
    known = checked.delivered[RAW_ROW]
    needed = (~checked.is_valid | known.notna()).to_numpy()
    made: list[str] = []
    first = 0
    for file in files:
        in_file = needed[first : (first := first + n_rows(file))]
        made += raw_row_ids(read_table(file)[in_file]) if in_file.any() else []
    return known.where(known.notna(), pd.Series(made, known.index[needed], dtype=object))
