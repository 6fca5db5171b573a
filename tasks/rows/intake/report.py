"""What `ingest` says of a delivery: ingest.json, and the stage's line."""

from collections.abc import Iterable
from dataclasses import dataclass, field

DAYS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class TakenOfDay:
    """The versions of rows of one event date that a run took."""

    late: int = 0
    """Rows that came after the day was stored."""
    changed: int = 0
    """Stored rows with other cells now."""
    withdrawn: int = 0
    """Stored rows that are withdrawn."""


@dataclass(frozen=True, kw_only=True)
class LeftOfDay:
    """Differences of one event date that a run did not take; each is told once."""

    rows: int = 0
    """Late and changed rows beyond `source.late_days`."""
    labels: int = 0
    """Late, corrected and withdrawn labels beyond `target.late_days`; those that cannot be read."""
    gone: int = 0
    """Stored rows that are delivered no longer, where no `source.complete` says that they are withdrawn."""


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """The content of ingest.json: how many rows and labels came, and what became of them."""

    as_of: str
    """The run's as_of."""
    rows_delivered: int = 0
    """All rows that were read: the sum of the nine counts below."""
    rows_new: int = 0
    """Rows stored by this run under their event date, on time."""
    rows_late: int = 0
    """Rows of stored days that were taken as they came late."""
    rows_changed: int = 0
    """Rows of stored days that were taken as their cells are others now."""
    rows_left: int = 0
    """Rows that differ from what is stored and were not taken: see `left`, which tells each once."""
    rows_of_stored_days: int = 0
    """Rows that are stored as they came, or name a key of which another one stands."""
    rows_superseded: int = 0
    """Rows of which `source.latest_by` lets a later version stand."""
    rows_waiting_without_a_date: int = 0
    """Rows without an event date that are stored with the next new date."""
    rows_later_than_the_night: int = 0
    """Rows of dates after the scored day."""
    rows_erased: int = 0
    """Rows that a person had erased and that the source delivers still: they are dropped."""
    rows_seen_before: int = 0
    """Rows in pieces of the source that are as an earlier run took them; they were not read again."""
    rows_withdrawn: int = 0
    """Stored rows that were withdrawn."""
    days_new: list[str] = field(default_factory=list)
    """Dates stored by this run."""
    days_refetched: dict[str, str] = field(default_factory=dict)
    """Dates that were fetched again, each with the reason."""
    labels_new: int = 0
    """Labels stored by this run that came on time."""
    labels_late: int = 0
    """Labels stored by this run that came later than they should."""
    labels_corrected: int = 0
    """Labels stored by this run in place of another value."""
    labels_withdrawn: int = 0
    """Stored labels that are known no more."""
    rows_total: int = 0
    """All rows that were ever stored, each once."""
    labels_total: int = 0
    """All versions of labels that are stored."""
    taken: dict[str, TakenOfDay] = field(default_factory=dict)
    """The versions of rows that this run took, by event date."""
    left: dict[str, LeftOfDay] = field(default_factory=dict)
    """What this run did not take, by event date, where no earlier run told the same."""
    keys_written_otherwise: int = 0
    """Keys that came as 1000.0 where 1000 is stored, or the other way round, and are taken as the stored ones."""
    newest_as_of: str = ""
    """The as_of of a later run, where there was one: then nothing was fetched."""

    @property
    def summary(self) -> str:
        """Return the stage's line."""
        if self.newest_as_of:
            return (
                f"nothing fetched: a run of a later as_of, {self.newest_as_of}, has been, and what was known on "
                f"{self.as_of} is stored"
            )
        text = f"{self.rows_new:,} new rows on {len(self.days_new)} days, {self.labels_new:,} new labels"
        return text + "".join(f"; {part}" for part in self._parts())

    def _parts(self) -> Iterable[str]:
        versions = {
            "late rows": self.rows_late,
            "changed rows": self.rows_changed,
            "withdrawn rows": self.rows_withdrawn,
            "late labels": self.labels_late,
            "corrected labels": self.labels_corrected,
            "withdrawn labels": self.labels_withdrawn,
        }
        counts = ", ".join(f"{n:,} {name}" for name, n in versions.items() if n)
        if counts:
            days = f" (rows of {_shown(self.taken)})" if self.taken else ""
            yield f"taken as known from {self.as_of} on: {counts}{days}"
        if beyond := {day: left for day, left in self.left.items() if left.rows or left.labels}:
            n_rows, n_labels = (sum(getattr(left, name) for left in beyond.values()) for name in ("rows", "labels"))
            yield (
                f"THE PAST HAS CHANGED, TOO LATE TO BE TAKEN: {n_rows:,} rows, {n_labels:,} labels of {_shown(beyond)} "
                "(kept as stored; told once): make refetch takes a day, source.late_days and target.late_days more"
            )
        if gone := {day: left for day, left in self.left.items() if left.gone}:
            n = sum(left.gone for left in gone.values())
            yield (
                f"{n:,} stored rows of {_shown(gone)} are delivered no longer (kept; told once): source.complete: true "
                "withdraws them, where each delivery has all rows of its days"
            )
        if self.rows_superseded:
            yield f"{self.rows_superseded:,} rows superseded by later versions (source.latest_by)"
        if self.rows_later_than_the_night:
            yield f"{self.rows_later_than_the_night:,} rows are later than the scored day, and left for later nights"
        if self.rows_waiting_without_a_date:
            yield f"{self.rows_waiting_without_a_date:,} rows without a date wait for a new day"
        if self.rows_erased:
            yield f"{self.rows_erased:,} rows dropped that were erased (make erase), and the source still has them"
        if self.keys_written_otherwise:
            yield (
                f"{self.keys_written_otherwise:,} KEYS CAME AS WHOLE NUMBERS WRITTEN OTHERWISE THAN BEFORE, with or "
                "without .0 (taken as the stored ones)"
            )


def _shown(by_day: Iterable[str]) -> str:
    days = sorted(by_day)
    more = f" and {len(days) - DAYS_SHOWN} more days" if len(days) > DAYS_SHOWN else ""
    return ", ".join(days[:DAYS_SHOWN]) + more
