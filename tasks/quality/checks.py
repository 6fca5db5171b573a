"""Check the partitions of rows and labels: types, keys, duplicates and the product's expectations."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, Expectation, Product
from tasks.quality.checked_table import CheckedTable, Read, ValidationSummary
from tasks.quality.expectations import ROW_BY_ROW, evaluate_expectations, merge_outcomes
from tasks.rows.casting import cast_column, cast_target, event_day, parse_time
from tasks.rows.corrections import names
from tasks.rows.keys import digests, key_text, seen_before
from tasks.rows.partitions import n_rows, partition, read_table, table_writer, write_table

ROWS_JUDGED_AT_ONCE = 250_000
"""Dates are judged together up to so many rows: each batch costs Great Expectations about 0.3 s, and memory."""


def check_partitions(
    files: list[Path],
    read: Read,
    typed: Callable[[list[Path], Read, Product], CheckedTable],
    expectations: list[Expectation],
    product: Product,
    valid: Path,
    quarantine: Path,
) -> ValidationSummary:
    """Judge the files of dates, a few dates at a time, and write what is valid and what is not."""
    valid.mkdir()
    tally = ValidationSummary()
    row_by_row = [e for e in expectations if e.type in ROW_BY_ROW]
    about_all = [e for e in expectations if e.type not in ROW_BY_ROW]
    seen, found_in_all = check_whole_table(files, read, typed, about_all, product)
    of_rows = [product.time, UNREADABLE_COLUMNS[0]] if typed is typed_rows else []
    again = find_duplicate_keys(files, read, product, of_rows)
    seen_by_row = []
    first = 0
    with table_writer(quarantine) as write_bad:
        for some in batch_partitions(files):
            judged = typed(some, read, product)
            here = slice(first, first := first + len(judged.delivered))
            judged.blame(pd.Series(again[here]), "+".join(product.key), "is a key already seen")
            seen_by_row.append(evaluate_expectations(judged, row_by_row))
            judged.blame_also(found_in_all.iloc[here].reset_index(drop=True))
            tally.count(judged)
            _write(judged, some, product, valid, write_bad)
    assert tally.totals["rows_in"] == len(again), "every delivered row must be accounted for"
    sums = iter([merge_outcomes(outcomes) for outcomes in zip(*seen_by_row, strict=True)])
    of_all = iter(seen)
    tally.results = [next(sums if e.type in ROW_BY_ROW else of_all) for e in expectations]
    return tally


def check_whole_table(
    files: list[Path],
    read: Read,
    typed: Callable[[list[Path], Read, Product], CheckedTable],
    expectations: list[Expectation],
    product: Product,
) -> tuple[list[dict[str, Any]], pd.Series]:
    """Outcomes of the expectations that need all rows at once, and the reasons that they give each row."""
    if not expectations:
        return [], pd.Series("", index=range(sum(map(n_rows, files))), dtype=object)
    judged = typed(files, read, product)
    judged = CheckedTable(judged.delivered, judged.typed)
    return evaluate_expectations(judged, expectations), judged.reasons


def find_duplicate_keys(files: list[Path], read: Read, product: Product, more: Sequence[str]) -> np.ndarray:
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


def batch_partitions(files: list[Path]) -> Iterator[list[Path]]:
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


def typed_rows(files: list[Path], read: Read, product: Product) -> CheckedTable:
    """The rows with declared types; a key must be there, and a time be a date."""
    delivered = read(files, [*product.input_columns, *UNREADABLE_COLUMNS])
    typed = delivered.drop(columns=[*UNREADABLE_COLUMNS, RAW_ROW])
    kinds = product.kinds
    misfits = {}
    for name, kind in kinds.items():
        typed[name], misfits[name] = cast_column(delivered[name], kind)
    judged = CheckedTable(delivered, typed)
    unreadable = delivered[UNREADABLE_COLUMNS[0]]  # column and rule, as `tasks.sources.fetch` tells them
    judged.reasons = unreadable.where(unreadable.notna(), "").astype(object)
    for name, misfit in misfits.items():
        judged.blame(misfit, name, f"is no {kinds[name]}")
    judged.blame(delivered[product.time].isna(), product.time, "is missing")
    moved = delivered[RAW_ROW].notna() & (event_day(typed[product.time]).fillna(delivered["dt"]) != delivered["dt"])
    judged.blame(moved, product.time, "was corrected to another day than that under which the row arrived")
    _blame_missing_keys(judged, product)
    return judged


def typed_labels(files: list[Path], read: Read, product: Product) -> CheckedTable:
    """The labels with declared types; of several truths about one key the first stands."""
    delivered = read(files, [*product.key, product.target.name])
    typed = delivered.drop(columns=RAW_ROW)
    for name in product.key:
        typed[name], _ = cast_column(delivered[name], product.kinds[name])  # as in the rows, to join them
    typed[product.target.name], misfit = cast_target(delivered[product.target.name], product.target)
    judged = CheckedTable(delivered, typed)
    judged.blame(misfit, product.target.name, f"is no {product.target.task} target")
    _blame_missing_keys(judged, product)
    return judged


def _blame_missing_keys(judged: CheckedTable, product: Product) -> None:
    key = list(product.key)
    judged.blame(judged.typed[key].isna().any(axis=1), "+".join(key), "is missing")


def _write(
    judged: CheckedTable, files: list[Path], product: Product, valid: Path, write_bad: Callable[[pd.DataFrame], None]
) -> None:
    """Each date's valid rows in order of key, so that nothing after this depends on the order of arrival."""
    for day, group in judged.typed[judged.is_valid].groupby("dt", sort=True):
        ordered = group.drop(columns="dt").sort_values(list(product.key))
        write_table(partition(valid, date.fromisoformat(str(day))), ordered)
    bad = judged.delivered.assign(**{RAW_ROW: _named(judged, files)})[~judged.is_valid]
    # As text, because a column that holds both numbers and words has no other common type.
    kept = bad.astype("str").where(bad.notna(), None).assign(reasons=judged.reasons[~judged.is_valid])
    write_bad(kept.astype("str"))


def _named(judged: CheckedTable, files: list[Path]) -> pd.Series:
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
