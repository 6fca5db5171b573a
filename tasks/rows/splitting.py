"""Part labelled rows into train, validation and test without leaks."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from model.features.kinds import TEXT
from model.heads import head_of
from tasks.params import NAIVE, HashSplit, Product
from tasks.rows.changed import add_changed_rows
from tasks.rows.labels.horizons import (
    has_naive,
    table_by_horizon,
)
from tasks.rows.labels.labelled import Index, find_windows, index_rows
from tasks.rows.labels.windows import NONE, TEST, TRAIN, VAL, Windows
from tasks.rows.losses import Losses
from tasks.rows.partitions import Partitions, table_writer, write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder

PARTS = ("train", "val", "test")
NUMBER = {"test": TEST, "val": VAL, "train": TRAIN}
FEW_GROUPS = 20
"""Of fewer groups a part may get none, whatever its share."""
GROUPS = "groups.parquet"
"""Beside the parts of a split by time: the digests of the groups that a model learns from."""


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """The content of split.json: which rows went into which part."""

    as_of: str
    """The run's as_of."""
    rows: dict[str, int]
    """Of each part, and with `init: pretrain` of the rows for pretraining."""
    rows_labelled: int
    """Rows with a label; by time those of the split's days."""
    rows_left_out: int
    """Of these, rows that are in no part: the sum of the next three."""
    rows_of_straddling_groups: int
    """Of these, rows whose group also has rows in a more held-out part."""
    rows_repeating_a_group: int
    """Of these, further rows of a held-out group of which one is judged."""
    rows_between_parts: int
    """Of these, rows whose label was not known before the next part begins, where several horizons are predicted."""
    labels_quarantined: int
    """Labels that validation kept back."""
    days: dict[str, list[str]]
    """First and last day of each part."""
    rows_changed: dict[str, int]
    """Copies with one cell changed that the held-out parts have besides, where rows have no labels."""

    def to_json(self) -> dict[str, object]:
        """Return the content of split.json."""
        return asdict(self)

    @property
    def is_by_time(self) -> bool:
        """Return whether every part begins after the one before it has ended."""
        ends = [day for name in PARTS for day in self.days[name]]
        return all(one < other for one, other in zip(ends[1::2], ends[2::2], strict=False))

    @property
    def summary(self) -> str:
        """Return the stage's line."""
        days = {name: " to ".join(days) for name, days in self.days.items()} if self.is_by_time else {}
        text = ", ".join(
            f"{name} {count:,}" + (f" ({days[name]})" if name in days else "") for name, count in self.rows.items()
        )
        if changed := ", ".join(f"{name} {count:,}" for name, count in self.rows_changed.items()):
            text += f"; besides, copies with one cell changed: {changed}"
        if self.rows_of_straddling_groups:
            text += f"; {self.rows_of_straddling_groups:,} labelled rows left out, whose group has rows in a later part"
        if self.rows_repeating_a_group:
            text += f"; {self.rows_repeating_a_group:,} further rows of held-out groups left out (split.per_group)"
        if self.rows_between_parts:
            text += f"; {self.rows_between_parts:,} left out between the parts, whose label was known too late"
        if self.labels_quarantined:
            text += f"; {self.labels_quarantined:,} labels are in quarantine"
        return text


def split_rows(product: Product, as_of: date, valid: Path, splits: Path, losses: Losses | None = None) -> SplitReport:
    """Part the rows below `valid` that are known at `as_of`, and write the parts as the folder `splits`.

    `losses` are what quarantine took, for messages.

    Raises UserError when a part would be empty or hold only one class.
    """
    rows, labels = Partitions(valid / "rows"), Partitions(valid / "labels")
    rule = product.split
    found = find_windows(valid, product, as_of) if rule.by == "time" else None
    index = index_rows(rows, rows.days(as_of, found[1] - found[0].span if found else None), labels, product, as_of)
    chosen = split_by_hash(index.group, rule) if rule.by == "hash" else split_by_time(index, found)
    wanted = np.where(index.labelled, chosen, np.int8(NONE))
    # A hash puts all rows of a group into one part.
    straddles = straddling(wanted, index) if product.split.by == "time" else np.zeros(len(wanted), bool)
    repeats = (
        repeating(np.where(straddles, NONE, wanted), index) if judges_one_of_a_group(product) else straddles & False
    )
    part = np.where(straddles | repeats, np.int8(NONE), wanted)
    losses, n_changed = losses or Losses(), dict[str, int]()
    check_parts(index, wanted, part, product, losses)
    unseen = ~np.isin(index.group, index.group[part < TRAIN]) if product.model.init == "pretrain" else None
    with atomic_folder(splits) as folder:
        write_parts(rows, product, index, part, unseen, folder)
        if not head_of(product.target.task).has_labels:
            n_changed = {name: add_changed_rows(folder / f"{name}.parquet", product) for name in ("val", "test")}
        if rule.by == "time" and rule.group:
            learnt = np.unique(index.group[(part == TRAIN) | (part == VAL)])
            write_table(folder / GROUPS, pd.DataFrame({"group": learnt}))
    n_labelled = int(index.labelled.sum())
    return SplitReport(
        as_of=as_of.isoformat(),
        rows={name: int((part == NUMBER[name]).sum()) for name in PARTS}
        | ({} if unseen is None else {"pretrain": int(unseen.sum())}),
        rows_labelled=n_labelled,
        rows_left_out=n_labelled - int((part != NONE).sum()),
        rows_of_straddling_groups=int(straddles.sum()),
        rows_repeating_a_group=int(repeats.sum()),
        rows_between_parts=int((index.labelled & (chosen == NONE)).sum()) if product.predict.horizons else 0,
        labels_quarantined=losses.labels,
        rows_changed=n_changed,
        days={name: days_of(index.day[part == NUMBER[name]]) for name in PARTS},
    )


def split_by_time(index: Index, found: tuple[Windows, date] | None) -> np.ndarray:
    """Return parts: the newest labelled days are test, those before them validation, those before them training."""
    if found is None:  # no row has a label
        return np.full(len(index.day), np.int8(NONE))
    windows, newest = found
    return windows.parts(index.day, index.horizon, np.datetime64(newest, "D"))


def split_by_hash(group: np.ndarray, rule: HashSplit) -> np.ndarray:
    """Return parts by a hash of the group alone: a row stays in its part as data grows. Shapes: uint64 [n], digests."""
    share = (group / 2.0**64 - rule.start) % 1
    ends = [rule.test_fraction, rule.test_fraction + rule.val_fraction]
    return np.searchsorted(ends, share, side="right").astype(np.int8)


def judges_one_of_a_group(product: Product) -> bool:
    """Return whether of a held-out group one row is judged: its rows are copies, not rows of one customer.

    Rows without a key are one group where all their cells are equal.
    """
    rule = product.split
    if rule.group is None:
        return not product.has_key
    return rule.per_group == "one" or (rule.per_group is None and product.columns.get(rule.group) == TEXT)


def straddling(part: np.ndarray, index: Index) -> np.ndarray:
    """Return the rows whose group also has rows in a more held-out part. Shapes: int, bool [n]."""
    first = pd.Series(part).groupby(index.group).transform("min").to_numpy()
    return (part != NONE) & (part > first)


def repeating(part: np.ndarray, index: Index) -> np.ndarray:
    """Return the held-out rows after the first of their group. Shapes: int, bool [n]."""
    table = pd.DataFrame({"part": part, "group": index.group})
    return (table.duplicated() & (table["part"] < TRAIN)).to_numpy()


def check_parts(index: Index, wanted: np.ndarray, part: np.ndarray, product: Product, losses: Losses) -> None:
    """Raise UserError where a part has no rows or lacks a class; `wanted` are the parts without regard to groups."""
    place = f"params.yaml: products.{product.name}.split"
    losses.check_labels(place, product.name)
    for name in PARTS:
        labels = index.labels_of(part == NUMBER[name])
        n_grouped = int(((wanted == NUMBER[name]) & (part == NONE)).sum())
        if few_groups := _few_groups(index, product):
            remedy = f"name a split.group of more values, or leave it out: the {few_groups} each stay in one part"
        elif n_grouped and labels.nunique() < 2:
            remedy = f"use by: hash, which parts whole groups, or leave out split.group ({product.split.group})"
        else:
            remedy = "give it more days or a larger share"
        if labels.empty:
            later = "" if n_grouped or few_groups else ", or a later as_of"
            raise UserError(
                f"{place}: every part must hold rows, and {name} has none of {index.labelled.sum():,} labelled rows"
                f"{_causes(index, n_grouped, product, losses)}; {remedy}{later}"
            )
        if head_of(product.target.task).one_class_per_row and labels.nunique() < 2:
            n_labelled = int(index.labelled.sum())
            if index.labels_of(index.labelled).nunique() < 2:
                remedy = (
                    f"no other share would have two: all {n_labelled:,} labelled rows that may be in a part are of one "
                    "class; see that target.name is the column that is meant, and that the source has the others"
                )
            raise UserError(
                f"{place}: every part must hold two classes of {product.target.name}, and {name} holds "
                f"{labels.nunique()} in {len(labels):,} rows{_causes(index, n_grouped, product, losses)}; {remedy}"
            )


def _few_groups(index: Index, product: Product) -> str:
    """Return how few groups labelled rows are of, where no share need have one of each; else nothing."""
    if not product.split.group or product.split.by != "hash":
        return ""
    n = len(np.unique(index.group[index.labelled]))
    return f"{n} groups of {product.split.group}" if n < FEW_GROUPS else ""


def _causes(index: Index, n_grouped: int, product: Product, losses: Losses) -> str:
    """Return what took the rows that a part lacks, for a message."""
    causes = []
    if n_grouped:
        causes.append(
            f"{n_grouped:,} rows of its days or share are of groups ({product.split.group}) that have rows in a more "
            "held-out part too"
        )
    if n_unlabelled := int((~index.labelled).sum()):
        causes.append(
            f"{n_unlabelled:,} valid rows have no label (yet: target.delay_days is {product.target.delay_days})"
        )
    if text := str(losses):
        causes.append(f"{text} are in quarantine: see make quarantine PRODUCT={product.name}")
    return f" ({'; '.join(causes)})" if causes else ""


def write_parts(
    rows: Partitions, product: Product, index: Index, part: np.ndarray, unseen: np.ndarray | None, folder: Path
) -> None:
    """Write every row to its parts, with its label: the second pass over the files."""
    names = PARTS if unseen is None else (*PARTS, "pretrain")
    with ExitStack() as closing:
        write = {name: closing.enter_context(table_writer(folder / f"{name}.parquet")) for name in names}
        first = 0
        for _, stored in rows.batches(index.days):
            piece = table_by_horizon(stored, product)
            in_piece = slice(first, first := first + len(piece))
            naive = index.naive_labels(in_piece) if has_naive(product) else None
            for name in PARTS:
                in_part = np.flatnonzero(part[in_piece] == NUMBER[name])
                label = pa.array(index.labels_of(in_piece.start + in_part), from_pandas=True)
                found = piece.take(pa.array(in_part)).append_column(product.target.name, label)
                write[name](found if naive is None else found.append_column(NAIVE, naive.take(in_part)))
            if unseen is not None:
                write["pretrain"](piece.filter(pa.array(unseen[in_piece])))


def days_of(days: np.ndarray) -> list[str]:
    """Return the first and the last day."""
    return [str(days.min()), str(days.max())]
