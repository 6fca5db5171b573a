"""What the index of raw data says of one date: its rows, the labels or the changes that became known on it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

CHANGES = "changes"
"""The folder of versions of rows beside the plan, under the date on which each became known."""
DT_OF, CHANGE, SLOT = "dt_of", "change", "slot"
"""Columns of a change: the event date, what it is, and its place among the rows of that date."""
LATE, CHANGED, WITHDRAWN = "late", "changed", "withdrawn"
Span = tuple[str, str]
"""The first and the last of some dates."""


@dataclass(frozen=True, kw_only=True)
class StoredDay:
    """One date's rows, or the labels that became known on it."""

    rows: int
    """How many."""
    digest: str
    """What identifies their content: `content_digest`, or what earlier versions kept under `sha256`."""
    of: Span | None = None
    """Labels: the first and last event date that they are of; None in an index of before this was kept."""
    late = 0

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StoredDay":
        """Return the entry of an index."""
        digest = content["digest"] if "digest" in content else content["sha256"]
        return cls(rows=content["rows"], digest=digest, of=tuple(content["of"]) if "of" in content else None)

    def to_json(self) -> dict[str, object]:
        """Return the entry of an index."""
        of = {} if self.of is None else {"of": list(self.of)}
        return {"rows": self.rows, "digest": self.digest, **of}

    @property
    def event_days(self) -> Span | None:
        """Return the first and last event date of which it holds labels, where that is known."""
        return self.of


@dataclass(frozen=True, kw_only=True)
class StoredChanges:
    """The versions of rows that became known beside the plan on one date."""

    rows: int
    """How many."""
    late: int
    """How many of them are late rows."""
    of: dict[str, str]
    """What identifies those of each event date."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StoredChanges":
        """Return the entry of an index."""
        return cls(**content)

    def to_json(self) -> dict[str, object]:
        """Return the entry of an index."""
        return asdict(self)

    @property
    def event_days(self) -> Span | None:
        """Return the first and last event date of which it holds versions; None where it holds none."""
        return (min(self.of), max(self.of)) if self.of else None
