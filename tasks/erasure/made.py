"""Take rows out of what stages have made of raw data: valid and quarantined rows, splits, a night, reports."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from tasks.erasure.partings import Holds, part_days, part_table
from tasks.erasure.subject import Subject, shows
from tasks.publication.contracts import Night, Part
from tasks.publication.night import NIGHT, read_night, run_of
from tasks.quality.ledger import FOLDER, KEYS
from tasks.rows.partitions import Partitions, n_rows
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, read_json, write_json
from tasks.runtime.paths import TABLES


@dataclass
class Judged:
    """How many rows went from what `validate` wrote, by kind and date; false where none did."""

    valid: dict[str, Counter[str]] = field(default_factory=dict)
    quarantined: dict[str, Counter[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether any row went."""
        return any(any(counts.values()) for each in (self.valid, self.quarantined) for counts in each.values())

    def of(self, kind: str, day: str) -> tuple[int, int]:
        """Return how many valid and how many quarantined rows of a date went."""
        return self.valid.get(kind, Counter())[day], self.quarantined.get(kind, Counter())[day]


def erase_judged(folder: Path, subject: Subject, holds: Holds) -> dict[str, Counter[str]]:
    """Take rows out of data/valid or data/quarantine; what days were judged by is forgotten, and made anew.

    The ledger sums up rows that are gone, and the index of keys holds their digests. Both follow from raw data and
    rules: the next run judges all days anew, which gives the same verdicts but where the row decided one.
    """
    found: dict[str, Counter[str]] = {kind: part_days(folder / kind, subject, holds) for kind in TABLES}
    for name in (FOLDER, KEYS):
        shutil.rmtree(folder / name, ignore_errors=True)
    return found


def erase_splits(folder: Path, subject: Subject, holds: Holds) -> int:
    """Take rows out of the parts to learn from; return how many went."""
    return sum(part_table(file, subject) for file in sorted(folder.glob("*.parquet")) if holds(file))


def erase_night(folder: Path, subject: Subject, holds: Holds, rows_sha256: str | None) -> int:
    """Take rows out of a scored night, of whose scored day the valid rows are others now; return how many went."""
    if not (folder / NIGHT).exists():
        return 0
    night, n_gone = read_night(folder), 0
    parts = []
    for part in night.parts:
        file = folder / part.name
        n_gone += part_table(file, subject) if holds(file) else 0
        parts.append(Part(name=part.name, rows=n_rows(file), bytes=file.stat().st_size, sha256=file_sha256(file)))
    if n_gone:
        rows_sha256 = rows_sha256 or fallback_sha256(night.inputs.rows_sha256, subject)
        write_json(folder / NIGHT, night_without(night, tuple(parts), n_gone, rows_sha256).to_json())
    return n_gone


def fallback_sha256(before: str | None, subject: Subject) -> str:
    """Return what stands for the valid rows of a night that are lost: the night must be another one than before."""
    return hashlib.sha256(f"{before} without {subject.hmac}".encode()).hexdigest()


def night_without(night: Night, parts: tuple[Part, ...], n_gone: int, rows_sha256: str | None) -> Night:
    """Return a night of whose rows some were erased: another night, as the rows that it was made of are others."""
    inputs = replace(night.inputs, rows_sha256=rows_sha256)
    rows = replace(night.rows, published=night.rows.published - n_gone, erased=night.rows.erased + n_gone)
    return replace(night, run=run_of(inputs), inputs=inputs, parts=parts, rows=rows)


def rows_sha256_of(valid: Path, scored_day: date) -> str | None:
    """Return the hash of the valid rows that a night was made of, as `predict` gives it."""
    rows = Partitions(valid / "rows")
    return rows.sha256(scored_day) if scored_day in rows else None


def erase_report(file: Path, subject: Subject, judged: Judged, name: str) -> None:
    """Take out of the report of a name what is said of single rows, and correct its counts of rows."""
    content = read_json(file)
    changed = cleaned(content, subject)
    if name == "validation.json":
        changed = recounted(changed, judged)
    elif "pictures" in changed:  # nobody can tell whose images those are like that the model has made up
        changed = {**changed, "pictures": [{**each, "made": []} for each in changed["pictures"]]}
    if changed != content:
        write_json(file, changed)


def cleaned(content: Any, subject: Subject) -> Any:
    """Return JSON without the entries of lists, and the entries by name, whose texts show what is to be erased."""
    if isinstance(content, list):
        return [cleaned(each, subject) for each in content if not (_is_of_one(each) and shows(each, subject))]
    if isinstance(content, dict):
        return {name: cleaned(each, subject) for name, each in content.items() if not shows(name, subject)}
    return "(erased)" if shows(content, subject) else content


def _is_of_one(entry: Any) -> bool:
    """Return whether an entry of a list is about one thing: it has a value of its own, not lists of others alone."""
    values = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else [entry]
    return any(not isinstance(each, list | dict) for each in values)


def recounted(report: Mapping[str, Any], judged: Judged) -> Mapping[str, Any]:
    """Return validation.json with the counts that the rows which stay have."""
    found = dict(report)
    for kind in TABLES:
        by_period = {}
        for period, counts in report.get(f"{kind}_by_date", {}).items():
            days = {
                day
                for gone in (judged.valid, judged.quarantined)
                for day in gone.get(kind, Counter())
                if day.startswith(period)
            }
            sums = [judged.of(kind, day) for day in days]
            by_period[period] = _less(counts, sum(valid for valid, _ in sums), sum(bad for _, bad in sums))
        total = [sum(gone.get(kind, Counter()).values()) for gone in (judged.valid, judged.quarantined)]
        found |= {f"{kind}_by_date": by_period, kind: _less(report[kind], *total)}
    scored = report["scored_day"]
    found["scored_day"] = _less(scored, *judged.of("rows", scored["date"]))
    return found


def _less(counts: Mapping[str, Any], valid: int, quarantined: int) -> Mapping[str, Any]:
    found = {
        **counts,
        "rows_in": counts["rows_in"] - valid - quarantined,
        "rows_valid": counts["rows_valid"] - valid,
        "rows_quarantined": counts["rows_quarantined"] - quarantined,
    }
    if found["rows_in"] != found["rows_valid"] + found["rows_quarantined"]:
        raise UserError("rows in must be valid plus quarantined after an erasure, and are not; report this as a bug")
    return found
