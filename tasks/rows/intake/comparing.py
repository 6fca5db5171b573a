"""Compare the rows of stored days as they are delivered now with the newest versions that are stored.

Rows are the same where they have one key and one event date, or, where the key is missing, the same cells. Their cells
are compared by what they mean: 7 is 7.0 and 1.50 is 1.5, so that a program which meets a gap changes no past.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from model.features.kinds import KINDS
from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import as_text, parse_time, without_nan
from tasks.rows.keys import RAW_TEXT_COLUMN, key_text
from tasks.rows.raw_archive import CHANGE, SLOT, WITHDRAWN
from tasks.rows.versions import KNOWN

_WHOLE = r"^([+-]?[0-9]+)\.0+$"
_EXACT = 2**53


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How delivered rows of stored days differ from what is stored; every frame has the column `dt`."""

    late: pd.DataFrame
    """Delivered rows whose key is not stored."""
    changed: pd.DataFrame
    """Delivered rows whose cells are others than those stored, with the slot whose row they take the place of."""
    doubles: pd.DataFrame
    """Stored rows that had the key of a changed row as well, with their slots."""
    gone: pd.DataFrame
    """Stored rows that are not delivered, with their slots."""


class Layouts(Protocol):
    """The columns with which rows were stored."""

    def of_day(self, day: str) -> list[str]:
        """Return those of the rows of an event date that came on time."""

    def of_changes(self, known: str) -> list[str]:
        """Return those of the versions that became known on a date."""


def compare(now: pd.DataFrame, stored: pd.DataFrame, product: Product, layouts: Layouts) -> Differences:
    """Return the differences between delivered rows and `tasks.rows.versions.History.slots` of the same dates.

    A row is compared by the columns that are declared now and with which it was stored.
    """
    stored = stored[stored[CHANGE] != WITHDRAWN]
    stored = stored[parse_time(stored[product.time]).notna()]  # one without a date is of no event date
    parts = list(_by_layout(now, stored, product, layouts))
    found = [_same(new, old, product, names, layouts) for names, new, old in parts]
    now_ids, then_ids, is_same = (np.concatenate([part[i] for part in found]) for i in range(3))
    is_same = is_same.astype(bool)
    now, stored = pd.concat([new for _, new, _ in parts]), pd.concat([old for *_, old in parts])
    is_stored = _is_among(now_ids, then_ids)
    differs = is_stored & ~_is_among(now_ids, now_ids[is_same]) & ~pd.Series(now_ids).duplicated().to_numpy()
    changed = now[differs]
    first = pd.Series(then_ids).duplicated().to_numpy()
    slots = pd.Series(stored[SLOT].to_numpy()[~first], index=then_ids[~first])
    return Differences(
        late=now[~is_stored],
        changed=changed.assign(**{SLOT: slots.reindex(now_ids[differs]).to_numpy()}),
        doubles=stored[first & _is_among(then_ids, now_ids[differs])],
        gone=stored[~_is_among(then_ids, now_ids)],
    )


def marks(rows: pd.DataFrame, product: Product) -> np.ndarray:
    """Return what identifies each row of a date, by key and cells. Shapes: uint64 [n]."""
    names = [name for name in [*product.stored_columns, *UNREADABLE_COLUMNS] if name in rows]
    return _pairs(*_identified(rows, product, names))


def _is_among(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which ids are among others; NumPy would compare each with each. Shapes: object [n], [m] -> bool [n]."""
    return pd.Series(ids, dtype=object).isin(others).to_numpy()


def _by_layout(
    now: pd.DataFrame, stored: pd.DataFrame, product: Product, layouts: Layouts
) -> Iterator[tuple[list[str], pd.DataFrame, pd.DataFrame]]:
    """Yield the columns to compare, and the delivered and stored rows of the dates that were stored with them."""
    by_layout: dict[tuple[str, ...], list[str]] = {}
    for day in sorted({*now["dt"].unique(), *stored["dt"].unique()}):
        names = layouts.of_day(day)
        by_layout.setdefault(tuple(name for name in product.stored_columns if name in names), []).append(day)
    texts = [name for name in UNREADABLE_COLUMNS if name in now or name in stored]
    for shared, days in by_layout.items():
        yield [*shared, *texts], now[now["dt"].isin(days)], stored[stored["dt"].isin(days)]


def _same(
    now: pd.DataFrame, stored: pd.DataFrame, product: Product, names: list[str], layouts: Layouts
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ids of delivered and of stored rows, and which delivered ones are stored with the same cells.

    Versions beside the plan may have been stored with other columns than the rows that came on time.
    """
    now_ids, now_cells = _identified(now, product, names)
    then_ids, then_cells = _identified(stored, product, names)
    is_same = np.isin(_pairs(now_ids, now_cells), _pairs(then_ids, then_cells))
    for known in stored[KNOWN].dropna().unique():
        shared = [name for name in names if name in layouts.of_changes(known) or name in UNREADABLE_COLUMNS]
        if shared != names:
            of_it = (stored[KNOWN] == known).to_numpy()
            versions = _pairs(then_ids[of_it], _hashes(stored[shared][of_it], product))
            is_same |= np.isin(_pairs(now_ids, _hashes(now.reindex(columns=shared), product)), versions)
    return now_ids, then_ids, is_same


def _identified(rows: pd.DataFrame, product: Product, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the id and the hash of the cells of each row. Shapes: object [n], uint64 [n]."""
    rows = rows.reindex(columns=list(dict.fromkeys([*names, *product.key, "dt"])))
    cells = _hashes(rows[names], product)
    keys = key_text(rows, product.key)
    ids = (rows["dt"] + " " + keys).astype(object).to_numpy()
    nameless = keys.isna().to_numpy()
    if nameless.any():
        same = pd.DataFrame({"dt": rows["dt"].to_numpy()[nameless], "cells": cells[nameless]})
        number = same.groupby(["dt", "cells"]).cumcount()
        ids[nameless] = [f"{day}#{cell}#{n}" for day, cell, n in zip(same["dt"], same["cells"], number, strict=True)]
    return ids, cells


def _hashes(rows: pd.DataFrame, product: Product) -> np.ndarray:
    """Return a hash of each row's cells, by what they mean: a row that cannot be read by its text alone."""
    cells = rows.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore")
    texts = pd.DataFrame({name: _meaning(cells[name], product.kinds[str(name)]).fillna("\0") for name in cells})
    if not len(texts):
        return np.empty(0, np.uint64)
    hashes = pd.util.hash_pandas_object(texts.astype(object), index=False).to_numpy().copy()
    if RAW_TEXT_COLUMN in rows and rows[RAW_TEXT_COLUMN].notna().any():
        raw = as_text(rows[RAW_TEXT_COLUMN])
        is_raw = raw.notna().to_numpy()
        hashes[is_raw] = pd.util.hash_pandas_object(raw[is_raw].astype(object), index=False).to_numpy()
    return hashes


def _meaning(cells: pd.Series, kind: str) -> pd.Series:
    """Return one text for cells that mean the same, missing where they say nothing."""
    if KINDS[kind].cells == "datetime64[s]":
        times = parse_time(cells)
        return as_text(cells).mask(times.notna(), times.dt.strftime("%Y-%m-%dT%H:%M:%S"))
    texts = as_text(without_nan(cells) if KINDS[kind].cells == "float64" else cells)
    if KINDS[kind].cells == "float64":
        numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
        return texts.mask(numbers.abs() < _EXACT, as_text(numbers))
    if texts.str.endswith(".0", na=False).any():
        return texts.str.replace(_WHOLE, r"\1", regex=True)
    return texts


def _pairs(ids: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return one hash of id and cells. Shapes: object [n], uint64 [n] -> uint64 [n]."""
    if not len(ids):
        return np.empty(0, np.uint64)
    with np.errstate(over="ignore"):
        return pd.util.hash_array(ids) * np.uint64(0x9E3779B97F4A7C15) + cells
