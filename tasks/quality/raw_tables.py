"""Read raw rows, or raw labels, of some days with their declared types, as tables to be checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from model.features.kinds import TIME, kind_class
from model.heads import head_of
from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, Product
from tasks.quality.checked_table import CheckedTable
from tasks.rows.casting import cast_column, cast_target, event_day, parse_time
from tasks.rows.corrections import Delivered
from tasks.rows.keys import key_text
from tasks.rows.partitions import Partitions

UNREADABLE, *_ = UNREADABLE_COLUMNS


@dataclass(frozen=True)
class RawTable:
    """The rows, or the labels, of one product."""

    product: Product
    delivered: Delivered

    def checked(self, days: Sequence[date]) -> CheckedTable:
        """Return days as one typed table, with the reasons against cells that do not fit."""
        raise NotImplementedError

    def keys(self, days: Sequence[date]) -> tuple[pd.Series, pd.Series]:
        """Return the keys that rows take, as text, and the date of each row that takes one.

        A row whose key is missing takes none. A later row with the same key is a duplicate.
        """
        raise NotImplementedError

    def _keys(self, rows: pd.DataFrame) -> pd.Series:
        key, kinds = self.product.key, self.product.kinds
        return key_text(pd.DataFrame({name: cast_column(rows[name], kinds[name])[0] for name in key}), key)

    def _reject_missing_keys(self, table: CheckedTable) -> None:
        key = list(self.product.key)
        lacks_key = table.typed[key].isna().any(axis=1)
        table.add_violation(lacks_key, "+".join(key), "is missing")
        table.takes_key = ~lacks_key


class RowsTable(RawTable):
    """Rows: a key must be given, and the time be a date."""

    def checked(self, days: Sequence[date]) -> CheckedTable:
        """Return the rows as a typed table."""
        product, kinds = self.product, self.product.kinds
        delivered = self.delivered.read(days, [*product.stored_columns, *UNREADABLE_COLUMNS])
        typed = delivered.drop(columns=[*UNREADABLE_COLUMNS, RAW_ROW])
        misfits = {}
        for name, kind in kinds.items():
            typed[name], misfits[name] = cast_column(delivered[name], kind)
        table = CheckedTable(delivered, typed, days)
        unreadable = delivered[UNREADABLE]  # `column: rule`, as `tasks.sources.unreadable` writes it
        table.reasons = unreadable.where(unreadable.notna(), "").astype(object)
        for name, misfit in misfits.items():
            for rule, fits_rule in _rules(delivered[name], misfit, kinds[name]):
                table.add_violation(fits_rule, name, rule)
        table.add_violation(delivered[product.time].isna(), product.time, "is missing")
        corrected = delivered[RAW_ROW].notna()
        if corrected.any():
            now, then = event_day(typed[product.time][corrected]), delivered["dt"][corrected]
            moved = corrected & (now.fillna(then) != then).reindex(corrected.index, fill_value=False)
            rule = "was corrected to another day than that under which the row arrived"
            table.add_violation(moved, product.time, rule)
        self._reject_missing_keys(table)
        is_dated = typed[product.time] if kinds[product.time] == TIME else parse_time(delivered[product.time])
        table.takes_key &= is_dated.notna() & unreadable.isna()
        return table

    def keys(self, days: Sequence[date]) -> tuple[pd.Series, pd.Series]:
        """Return the keys; a row that cannot be read, or has no date, takes none."""
        product = self.product
        rows = self.delivered.read(days, list(dict.fromkeys([*product.key, product.time, UNREADABLE])))
        keys = self._keys(rows)
        takes = keys.notna() & parse_time(rows[product.time]).notna() & rows[UNREADABLE].isna()
        return keys[takes], rows["dt"][takes]


def _rules(cells: pd.Series, misfit: pd.Series, kind: str) -> Iterator[tuple[str, pd.Series]]:
    """Yield what is broken by cells that are none of a kind, and by which: one rule, or one for each reason."""
    if not kind_class(kind).is_converted or not misfit.any():
        yield f"is no {kind}", misfit
        return
    reasons = cells.where(misfit, None).map(kind_class(kind).misfit_reason, na_action="ignore")
    for reason in sorted(reasons.dropna().unique()):
        yield f"is no {kind}" + (f": {reason}" if reason else ""), reasons.eq(reason)


@dataclass(frozen=True)
class LabelsTable(RawTable):
    """Labels: of several labels of one key that became known on one day the first is kept; one may be withdrawn."""

    rows: Partitions | None = None
    """The valid rows, by which a label is judged that must stand in a text of its row."""

    def checked(self, days: Sequence[date]) -> CheckedTable:
        """Return the labels as a typed table."""
        product, target = self.product, self.product.target
        delivered = self.delivered.read(days, [*product.key, target.name])
        typed = delivered.drop(columns=RAW_ROW)
        for name in product.key:
            typed[name], _ = cast_column(delivered[name], product.kinds[name])  # as in the rows, to join them
        typed[target.name], misfit = cast_target(delivered[target.name], target)
        table = CheckedTable(delivered, typed, days)
        table.add_violation(misfit, target.name, f"is no {target.task} target")
        self._reject_missing_keys(table)
        if self.rows is not None and head_of(target.task).answers_spans:
            stands_nowhere = _do_not_stand(typed, product, self.rows, days)
            table.add_violation(stands_nowhere, target.name, f"does not stand in {target.text} as it is written")
            misfit |= stands_nowhere
        table.takes_key &= ~misfit  # so that a readable label of the same key stands
        return table


def _do_not_stand(labels: pd.DataFrame, product: Product, rows: Partitions, days: Sequence[date]) -> pd.Series:
    """Return which typed labels, known on these days, do not stand in the texts of their rows.

    A label whose row is not there, or in quarantine, may stand in it. Rows are at most as many days older as labels
    may be late.
    Shapes: bool, with the index of the labels.
    """
    target, key = product.target, list(product.key)
    names = key_text(labels, key)
    stands = np.ones(len(labels), bool)
    since = None
    if product.has_time and days:
        since = min(days) - timedelta(days=target.delay_days + target.late_days + product.predict.lead_days)
    for _, table in rows.batches(rows.days(since=since), [*key, target.text]):
        part = table.to_pandas(integer_object_nulls=True)
        text_of = dict(zip(key_text(part, key), part[target.text], strict=True))
        for place in np.flatnonzero(names.isin(text_of.keys())).tolist():
            text, label = text_of[names.iat[place]], labels[target.name].iat[place]
            stands[place] = not isinstance(label, str) or label in (text if isinstance(text, str) else "")
    return pd.Series(~stands, labels.index)
