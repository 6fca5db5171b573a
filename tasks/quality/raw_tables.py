"""Read raw partitions of rows or of labels with their declared types, as tables to be checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, Product
from tasks.quality.checked_table import CheckedTable
from tasks.rows.casting import cast_column, cast_target, event_day, parse_time
from tasks.rows.keys import key_text

Read = Callable[[list[Path], list[str]], pd.DataFrame]
"""Reads some columns of partitions: `tasks.rows.corrections.read_corrected` with its corrections."""
UNREADABLE, *_ = UNREADABLE_COLUMNS


@dataclass(frozen=True)
class RawTable:
    """Partitions of one kind, of one product."""

    product: Product
    read: Read

    def checked(self, files: list[Path]) -> CheckedTable:
        """Return the partitions as one typed table, with the reasons against cells that do not fit."""
        raise NotImplementedError

    def keys(self, file: Path) -> tuple[pd.Series, pd.Series]:
        """Return each row's key as text, and whether the row takes its key: a later one with the same is a duplicate.

        A row whose key is missing takes none.
        """
        raise NotImplementedError

    def _key_text(self, delivered: pd.DataFrame) -> pd.Series:
        key, kinds = self.product.key, self.product.kinds
        return key_text(pd.DataFrame({name: cast_column(delivered[name], kinds[name])[0] for name in key}), key)

    def _reject_missing_keys(self, table: CheckedTable) -> None:
        key = list(self.product.key)
        table.add_violation(table.typed[key].isna().any(axis=1), "+".join(key), "is missing")


class RowsTable(RawTable):
    """Rows: a key must be given, and the time be a date."""

    def checked(self, files: list[Path]) -> CheckedTable:
        """Return the rows as a typed table."""
        product, kinds = self.product, self.product.kinds
        delivered = self.read(files, [*product.input_columns, *UNREADABLE_COLUMNS])
        typed = delivered.drop(columns=[*UNREADABLE_COLUMNS, RAW_ROW])
        misfits = {}
        for name, kind in kinds.items():
            typed[name], misfits[name] = cast_column(delivered[name], kind)
        table = CheckedTable(delivered, typed)
        unreadable = delivered[UNREADABLE]  # `column: rule`, as `tasks.sources.formats.unreadable` writes it
        table.reasons = unreadable.where(unreadable.notna(), "").astype(object)
        for name, misfit in misfits.items():
            table.add_violation(misfit, name, f"is no {kinds[name]}")
        table.add_violation(delivered[product.time].isna(), product.time, "is missing")
        moved = delivered[RAW_ROW].notna() & (event_day(typed[product.time]).fillna(delivered["dt"]) != delivered["dt"])
        table.add_violation(moved, product.time, "was corrected to another day than that under which the row arrived")
        self._reject_missing_keys(table)
        return table

    def keys(self, file: Path) -> tuple[pd.Series, pd.Series]:
        """Return the keys; a row that cannot be read, or has no date, takes none."""
        product = self.product
        delivered = self.read([file], list(dict.fromkeys([*product.key, product.time, UNREADABLE])))
        text = self._key_text(delivered)
        return text, text.notna() & parse_time(delivered[product.time]).notna() & delivered[UNREADABLE].isna()


class LabelsTable(RawTable):
    """Labels: of several labels of one key the first is kept."""

    def checked(self, files: list[Path]) -> CheckedTable:
        """Return the labels as a typed table."""
        product, target = self.product, self.product.target
        delivered = self.read(files, [*product.key, target.name])
        typed = delivered.drop(columns=RAW_ROW)
        for name in product.key:
            typed[name], _ = cast_column(delivered[name], product.kinds[name])  # as in the rows, to join them
        typed[target.name], misfit = cast_target(delivered[target.name], target)
        table = CheckedTable(delivered, typed)
        table.add_violation(misfit, target.name, f"is no {target.task} target")
        self._reject_missing_keys(table)
        return table

    def keys(self, file: Path) -> tuple[pd.Series, pd.Series]:
        """Return the keys; a label that cannot be read takes none, so that a readable one of the same key stands."""
        target = self.product.target
        delivered = self.read([file], [*self.product.key, target.name])
        text = self._key_text(delivered)
        return text, text.notna() & cast_target(delivered[target.name], target)[0].notna()
