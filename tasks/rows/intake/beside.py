"""Take what becomes known beside the plan: late, changed and withdrawn rows, late, corrected and withdrawn labels.

Each is a new version, known on the run's as_of. What comes later than the product's window is left, and told once.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.intake.comparing import Differences, compare, marks
from tasks.rows.intake.delivered import LABELLED, Delivered
from tasks.rows.intake.truths import LabelDifferences, LabelFiles, compare_labels, label_marks
from tasks.rows.intake.window import Window
from tasks.rows.raw_archive import (
    CHANGE,
    CHANGED,
    CHANGES,
    DT_OF,
    LATE,
    SLOT,
    WITHDRAWN,
    RawIndex,
    StoredChanges,
    StoredDay,
    canonical,
    content_digest,
    storable,
)
from tasks.rows.versions import KNOWN, History, joined

ByDay = dict[str, Counter[str]]


class Beside:
    """The versions that one run takes, and those that it leaves."""

    def __init__(
        self, product: Product, window: Window, index: RawIndex, delivered: Delivered, refetched: dict[str, str]
    ) -> None:
        """Begin with none."""
        self.product, self.window, self.index, self.delivered = product, window, index, delivered
        self.refetched = refetched
        stored = index.copy()
        self.history = History(index.folder, window.as_of, stored)
        self.counts: Counter[str] = Counter()
        self.taken: ByDay = defaultdict(Counter)
        self.left: ByDay = defaultdict(Counter)
        self.labels: list[pd.DataFrame] = []
        """Labels that become known on this as_of, with their event dates as `dt`."""
        self.unsettled: set[str] = set()
        """Event dates of which a label waits for the next as_of."""
        self._label_files = LabelFiles(stored, product)
        self._marks: dict[str, list[np.ndarray]] = defaultdict(list)
        self._versions: list[pd.DataFrame] = []

    def may_have_labels(self, day: date) -> bool:
        """Return whether a file that an earlier run stored may hold labels of an event date."""
        return bool(self._label_files.of(day, day))

    def labels_of(self, day: date) -> list[StoredDay]:
        """Return the files that may hold labels of an event date, of those that an earlier run stored."""
        return [*self._label_files.of(day, day).values()]

    def has_versions(self, day: date) -> bool:
        """Return whether rows of an event date have versions beside the plan, or a person has fetched it again."""
        return day.isoformat() in self.refetched or self.history.has_versions(day)

    def compare_rows(self, rows: pd.DataFrame) -> None:
        """Take what differs of delivered rows of stored dates (`dt`)."""
        self._compare_rows(rows, sorted(rows["dt"].unique()))

    def compare_absent(self) -> None:
        """Take that dates which a person has fetched again are delivered no longer."""
        delivered = {day.isoformat() for day in self.delivered.days}
        absent = sorted(day for day in self.refetched if day not in delivered)
        if absent:
            columns = [*self.product.stored_columns, *UNREADABLE_COLUMNS, "dt"]
            self._compare_rows(pd.DataFrame({name: pd.Series(dtype="str") for name in columns}), absent)

    def compare_labels(self, labels: pd.DataFrame) -> None:
        """Take what differs of delivered labels that are due, by event date (`dt`)."""
        found = compare_labels(labels, labels[LABELLED].astype(bool), self.product, self.index, self.window.as_of)
        self._take_labels(found)
        self.unsettled |= {*found.waiting["dt"]}

    def _take_labels(self, found: LabelDifferences) -> None:
        whole = found.withdrawn["dt"].map(self._is_whole).astype(bool)
        versions = {"late": found.late, "corrected": found.corrected, "withdrawn": found.withdrawn[whole]}
        for kind, labels in versions.items():
            taken = self._is_taken(labels["dt"], self.window.takes_labels)
            on_time = labels["dt"][taken].map(self._is_of_today).astype(bool).sum() if kind == "late" else 0
            self.counts += Counter({f"labels_{kind}": int(taken.sum()) - int(on_time), "labels_new": int(on_time)})
            if taken.any():
                self.labels.append(labels[taken].drop(columns=LABELLED))
            self._leave("labels", labels[~taken], label_marks(labels[~taken], self.product))
        self._leave("labels", found.unreadable, label_marks(found.unreadable, self.product))

    def _compare_rows(self, rows: pd.DataFrame, days: list[str]) -> None:
        product = self.product
        names = [*product.stored_columns, *(name for name in UNREADABLE_COLUMNS if name in rows)]
        stored = self.history.slots([date.fromisoformat(day) for day in days], names)
        n_slots = stored.groupby("dt")[SLOT].max().add(1)
        found = compare(rows[[*names, "dt"]], stored, product, self)
        self._take_late(found.late, n_slots)
        taken = self._is_taken(found.changed["dt"], self.window.takes_rows)
        self._take(CHANGED, found.changed[taken])
        self._leave("rows", found.changed[~taken], marks(found.changed[~taken], product))
        self.counts["rows_left"] += int((~taken).sum())
        self._take(WITHDRAWN, found.doubles[self._is_taken(found.doubles["dt"], self.window.takes_rows)])
        self._take_gone(found)

    def _take_late(self, late: pd.DataFrame, n_slots: pd.Series) -> None:
        taken = self._is_taken(late["dt"], self.window.takes_rows)
        new = late[taken]
        first = new["dt"].map(n_slots).fillna(0).astype("int64")
        self._take(LATE, new.assign(**{SLOT: first + new.groupby("dt").cumcount()}))
        self._leave("rows", late[~taken], marks(late[~taken], self.product))
        self.counts["rows_left"] += int((~taken).sum())

    def _take_gone(self, found: Differences) -> None:
        """Take that stored rows are delivered no longer, where a delivery has all rows of their date."""
        gone = found.gone[found.gone["dt"].map(self._is_whole).astype(bool)]
        taken = gone["dt"].isin(self.refetched)
        if self.product.source.complete:
            taken |= self._is_taken(gone["dt"], self.window.takes_rows)
        self._take(WITHDRAWN, gone[taken])
        self._leave("gone", gone[~taken], marks(gone[~taken], self.product))

    def _is_of_today(self, day: str) -> bool:
        return self.window.label_known(date.fromisoformat(day)) == self.window.as_of

    def _is_whole(self, day: str) -> bool:
        return day in self.refetched or self.delivered.is_all_of(date.fromisoformat(day))

    def _is_taken(self, days: pd.Series, takes: Callable[[date], bool]) -> pd.Series:
        found = {day: day in self.refetched or takes(date.fromisoformat(day)) for day in days.unique()}
        return days.map(found).astype(bool)

    def _take(self, change: str, rows: pd.DataFrame) -> None:
        self.counts[f"rows_{change}"] += len(rows)
        for day, n in rows["dt"].value_counts().items():
            self.taken[str(day)][change] += int(n)
        if len(rows):
            self._versions.append(rows.drop(columns=[CHANGE, KNOWN], errors="ignore").assign(**{CHANGE: change}))

    def _leave(self, kind: str, rows: pd.DataFrame, found: np.ndarray) -> None:
        for day, places in rows.reset_index(drop=True).groupby("dt").indices.items():
            self.left[str(day)][kind] += len(places)
            self._marks[str(day)].append(found[places])

    def left_and_not_told(self) -> ByDay:
        """Return what was left and differs from what an earlier run has told, and note it as told."""
        new = {}
        for day, counts in self.left.items():
            digest = hashlib.blake2b(np.sort(np.concatenate(self._marks[day])).tobytes(), digest_size=8).hexdigest()
            if self.index.left.get(day) != digest:
                self.index.left[day] = digest
                new[day] = counts
        return new

    def write_versions(self) -> None:
        """Write the versions of rows that became known on this as_of, behind those of an earlier run of it."""
        if not self._versions:
            return
        known = self.window.as_of.isoformat()
        rows = joined(self._versions).rename(columns={"dt": DT_OF})
        rows[SLOT] = rows[SLOT].astype("int64")
        if known in self.index.changes:
            rows = joined([self.index.read(CHANGES, [known]).drop(columns="dt"), rows])
        table = canonical(pa.Table.from_pandas(rows.apply(storable), preserve_index=False))
        self.index.partitions(CHANGES).write(self.window.as_of, table)
        of = {
            str(day): content_digest(table.take(pa.array(places)))
            for day, places in sorted(rows.groupby(DT_OF).indices.items())
        }
        self.index.changes[known] = StoredChanges(rows=len(rows), late=int((rows[CHANGE] == LATE).sum()), of=of)

    def of_day(self, day: str) -> list[str]:
        """Return the columns of the rows of an event date that came on time; as declared where there are none."""
        files = self.index.partitions("rows")
        return files.columns(date.fromisoformat(day)) if day in self.index.rows else self.product.stored_columns

    def of_changes(self, known: str) -> list[str]:
        """Return the columns of the versions that became known on a date."""
        return self.index.partitions(CHANGES).columns(date.fromisoformat(known))
