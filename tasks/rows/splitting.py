"""Part labelled rows into train, validation and test without leaks."""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from model.features.kinds import TEXT
from model.heads import head_of
from tasks.params import NAIVE, HashSplit, Product
from tasks.rows.casting import as_text
from tasks.rows.changed import add_changed_rows
from tasks.rows.keys import content_of, digests, key_text
from tasks.rows.labels.horizons import (
    NAIVE_WEEKS,
    WEEK,
    by_horizon,
    has_naive,
    label_names,
    places,
    table_by_horizon,
)
from tasks.rows.labels.known import known_labels
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


@dataclass(frozen=True)
class Index:
    """Date, group and label of the rows that may be in a part, in order of date and key; the rest stays in files."""

    days: list[date]
    """The dates that were read."""
    day: np.ndarray
    """datetime64[D] [n]: the date of the row, also where it is predicted for later ones."""
    group: np.ndarray
    """uint64 [n]: digests of the groups, which must not straddle a split."""
    place: np.ndarray
    """int32 [n]: of a row's label in `labels`, or -1 where none is known."""
    labels: pd.Series
    """The labels that are known."""
    horizon: np.ndarray
    """int32 [n]: days ahead; 0 where a row is predicted for its own day alone."""
    naive: np.ndarray
    """int32 [n]: of the seasonal naive label in `labels`, or -1; empty where rows have none."""

    @property
    def labelled(self) -> np.ndarray:
        """Return the rows with a label. Shapes: bool [n]."""
        return self.place >= 0

    def naive_labels(self, rows: slice) -> pa.Array:
        """Return the seasonal naive label of rows, null where there is none."""
        at, found = self.naive[rows], np.full(rows.stop - rows.start, np.nan)
        found[at >= 0] = self.labels.take(at[at >= 0])
        return pa.array(found, from_pandas=True)

    def labels_of(self, rows: np.ndarray) -> pd.Series:
        """Return the labels of rows that have one. Shapes: bool or int [n]."""
        return self.labels.take(self.place[rows])


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
    def summary(self) -> str:
        """Return the stage's line."""
        text = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
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
    index = index_rows(rows, days_to_read(rows, labels, product, as_of), labels, product, as_of)
    rule = product.split
    chosen = split_by_time(index, product) if rule.by == "time" else split_by_hash(index.group, rule)
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


def days_to_read(rows: Partitions, labels: Partitions, product: Product, as_of: date) -> list[date]:
    """Return the dates whose rows may be in a part: by time those of the split's days, and the newer ones."""
    rule, oldest = product.split, rows.first()
    if rule.by == "hash" or oldest is None:
        return rows.days(as_of)
    end, n_days, windows = as_of, 1, Windows.of(product)
    while end >= oldest:  # twice as many days at each look: what is read follows from how far back the newest label is
        days = rows.days(end, since=end - timedelta(days=n_days - 1))
        index = index_rows(rows, days, labels, product, as_of) if days else None
        if index and (decisive := windows.decides(index.labelled, index.horizon)).any():
            return rows.days(as_of, since=index.day[decisive].max().item() - windows.span)
        end, n_days = end - timedelta(days=n_days), 2 * n_days
    return rows.days(as_of)


def index_rows(rows: Partitions, days: list[date], labels: Partitions, product: Product, as_of: date) -> Index:
    """Read the keys and groups of dates, a row group at a time, and the labels that are known of them."""
    since = None
    if product.split.by == "time" and days:  # no label is known before its row is
        since = days[0] - timedelta(days=product.predict.lead_days or (NAIVE_WEEKS * WEEK if has_naive(product) else 0))
    known = known_labels(labels, labels.days(as_of, since), product)
    key = list(product.key)
    wanted = list(dict.fromkeys([*key, *([product.split.group] if product.split.group else [])]))
    day, group, place = [np.empty(0, "datetime64[D]")], [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    horizon, naive = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for dates, stored in rows.batches(days, wanted):
        table = stored.to_pandas(integer_object_nulls=True)
        row, days_ahead = places(len(table), product)
        ahead = by_horizon(table, product)
        day.append(dates[row])
        horizon.append(days_ahead)
        place.append(known.labelled_places(label_names(ahead, product)))
        if has_naive(product):
            naive.append(known.naive_places(ahead, product))
        group.append(digests(group_codes(table, key_text(table, key), product))[row, 0])
    return Index(
        days=days,
        day=np.concatenate(day),
        group=np.concatenate(group),
        place=np.concatenate(place),
        labels=known.value,
        horizon=np.concatenate(horizon),
        naive=np.concatenate(naive),
    )


def group_codes(table: pd.DataFrame, keys: pd.Series, product: Product) -> pd.Series:
    """Return one text per row for its group: case and white space do not make two texts differ."""
    alone = keys if product.has_key else content_of(keys)  # equal rows without keys are one group
    if not product.split.group:
        return alone
    group = as_text(table[product.split.group])
    if product.columns.get(product.split.group) == TEXT:
        group = group.map(lambda text: " ".join(text.lower().split()), na_action="ignore").astype("str")
    return group.where(group.notna(), "\x1f" + alone)  # a row without a group is one of its own


def split_by_time(index: Index, product: Product) -> np.ndarray:
    """Return parts: the newest labelled days are test, the days before them validation, those before them training."""
    windows = Windows.of(product)
    decisive = windows.decides(index.labelled, index.horizon)
    newest = index.day[decisive].max(initial=np.datetime64("0001-01-01"))
    return windows.parts(index.day, index.horizon, newest)


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
