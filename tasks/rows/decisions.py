"""Read and write the decisions of people about a product's data: decisions/<product>/dt=D.jsonl, one a line.

`accepted` lets a day pass that differs in kind, `refetch` has a stored day fetched again, `correction` puts cells of a
quarantined row right, `anew` lets the run of that as_of go on without history that is lost; each says when it was
decided, by which person and why. They are text in git, so that every change has an author and travels with every clone.
`make accept`, `make refetch`, `make anew` and `make requeue` write them.

A day that is accepted or fetched again is so for a run of any as_of: the night that was stopped is run once more, and
must see it. A correction is known from the as_of that it names: a run of an earlier night does not see it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import ClassVar

from tasks.params import parse_date
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import TABLES

FOLDER = Path("decisions")
EARLIER_FOLDER = Path("corrections")
"""Where corrections were before there were other decisions."""
Cells = dict[str, str | int | float | bool | None]
"""Value by column."""
Corrections = dict[tuple[str, str], dict[str, Cells]]
"""By kind of partition (rows or labels) and day, the corrected cells of each row, by the row's id."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision about the data of one day, which the file's name says."""

    kind: ClassVar[str]
    """The word for it in the file."""
    decided: str
    """The date of the decision, YYYY-MM-DD."""
    person: str
    """The person."""
    why: str
    """The reason."""

    def __post_init__(self) -> None:
        """Raise ValueError where a part is not what it must be."""
        for name, text in (("decided", self.decided), ("person", self.person), ("why", self.why)):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name} must be given, got {text!r}")
        parse_date(self.decided)

    @property
    def reason(self) -> str:
        """Return why, and by whom, as reports and manifests say it."""
        return f"{self.why} ({self.person})"

    def line(self) -> str:
        """Return the line of the file."""
        return json.dumps({"kind": self.kind, **asdict(self)}, ensure_ascii=False)


class Accepted(Decision):
    """The day passes although it differs in kind from those before it."""

    kind = "accepted"


class Refetch(Decision):
    """The day's stored rows give way, once, to those that the source delivers now."""

    kind = "refetch"


class Anew(Decision):
    """The run of this as_of goes on without the history that the origin has lost."""

    kind = "anew"


@dataclass(frozen=True, kw_only=True)
class Correction(Decision):
    """Cells of one row that were wrong."""

    kind = "correction"
    of: str
    """rows or labels."""
    row: str
    """The row's id: see `tasks.rows.keys.row_ids`."""
    known: str
    """The as_of from which on the correction is known."""
    cells: Cells
    """The right values."""

    def __post_init__(self) -> None:
        """Raise ValueError where a part is not what it must be."""
        super().__post_init__()
        if not isinstance(self.row, str) or not isinstance(self.known, str):
            raise ValueError(f"row and known must be texts, got {self.row!r} and {self.known!r}")
        parse_date(self.known)
        is_flat = isinstance(self.cells, dict) and not any(
            isinstance(cell, dict | list) for cell in self.cells.values()
        )
        if self.of not in TABLES or not is_flat:
            raise ValueError("of must be rows or labels, and cells single values by column")


_CLASSES: dict[str, type[Decision]] = {each.kind: each for each in (Accepted, Refetch, Anew, Correction)}


def file_of(product: str, day: date) -> Path:
    """Return the file with the decisions about one day."""
    return FOLDER / product / f"dt={day.isoformat()}.jsonl"


def lines_of(file: Path) -> Iterator[tuple[str, str]]:
    r"""Yield place and text of each line of a JSON Lines file: ended by \n alone, as other ends may be in a cell."""
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if line.strip():
            yield f"{file}:{number}", line


def read_decisions(file: Path) -> list[Decision]:
    """Return the decisions of one file, in order; none where it does not exist.

    Raises UserError naming the line that is none.
    """
    found = []
    for place, line in lines_of(file) if file.exists() else ():
        try:
            found.append(_parsed(json.loads(line)))
        except ValueError as error:
            raise UserError(
                f"{place}: a line must be a decision as make accept, refetch or requeue writes it; {error}; "
                "mend or delete it"
            ) from None
    return found


def _parsed(content: object) -> Decision:
    """Return the decision that a line's JSON says. Raises ValueError where it is none."""
    if not isinstance(content, dict):
        raise ValueError("it must be a JSON object")
    kind = content.pop("kind", None)
    if kind not in _CLASSES:
        raise ValueError(f"kind must be one of {', '.join(_CLASSES)}, got {kind!r}")
    names = {field.name for field in fields(_CLASSES[kind])}
    if content.keys() != names:
        wrong = ", ".join(sorted(content.keys() ^ names))
        raise ValueError(f"{kind} must have the keys {', '.join(sorted(names))} and no others; see {wrong}")
    return _CLASSES[kind](**content)


def write_decisions(file: Path, decisions: Sequence[Decision]) -> None:
    """Write the decisions of one file: corrections last, in an order of their own."""
    corrections = [each for each in decisions if isinstance(each, Correction)]
    others = [each for each in decisions if not isinstance(each, Correction)]
    ordered = [*others, *sorted(corrections, key=lambda each: (each.of, each.row, each.known))]
    with atomic_file(file) as temporary:
        temporary.write_text("".join(each.line() + "\n" for each in ordered), "utf-8")


def accepted_days(product: str) -> dict[str, str]:
    """Return the days that were accepted, each with the newest reason."""
    return _newest_reasons(product, Accepted)


def refetched_days(product: str) -> dict[str, str]:
    """Return the days that were to be fetched again, each with the newest reason."""
    return _newest_reasons(product, Refetch)


def reason_for_anew(product: str, as_of: date) -> str | None:
    """Return the newest reason with which the run of an as_of goes on without lost history; None without one."""
    return _newest_reasons(product, Anew).get(as_of.isoformat())


def _newest_reasons(product: str, kind: type[Decision]) -> dict[str, str]:
    return {
        day.isoformat(): each.reason
        for day, decisions in _by_day(product)
        for each in decisions
        if isinstance(each, kind)
    }


def known_corrections(product: str, as_of: date) -> Corrections:
    """Return the corrected cells that are known on `as_of`, the newest known of each cell."""
    found: Corrections = {}
    for day, decisions in _by_day(product):
        corrections = [each for each in decisions if isinstance(each, Correction)]
        for each in sorted(corrections, key=lambda each: each.known):
            if each.known <= as_of.isoformat():
                rows = found.setdefault((each.of, day.isoformat()), {})
                rows[each.row] = {**rows.get(each.row, {}), **each.cells}
    return found


def _by_day(product: str) -> Iterator[tuple[date, list[Decision]]]:
    _raise_if_earlier(product)
    for file in sorted((FOLDER / product).glob("*.jsonl")):
        try:
            day = parse_date(file.stem.removeprefix("dt="))
        except ValueError as error:
            raise UserError(f"{file}: a file must be named like dt=2013-06-30.jsonl; {error}; rename it") from None
        yield day, read_decisions(file)


def _raise_if_earlier(product: str) -> None:
    """Raise UserError where corrections lie in the folder of before: they must not be lost in silence."""
    if any((EARLIER_FOLDER / product).glob("*.jsonl")):
        raise UserError(
            f"{EARLIER_FOLDER}/{product} must have moved to {FOLDER}/, and has not; "
            "run python -m tasks.commands migrate-decisions, and commit what it writes"
        )
