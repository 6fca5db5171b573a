"""Corrected cells of quarantined rows, as a person commits them: corrections/<product>/dt=D.jsonl.

Raw data stays as it was delivered. `validate` lays the corrections over it and judges the rows again, so that each is
counted once, where it arrived. A correction is known from the as_of that it names: a run of an earlier night does not
see it. What it says is text in git, with an author and a date, and travels with every clone.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, parse_date
from tasks.rows.keys import row_ids
from tasks.rows.partitions import partition_day, read_partitions, read_table
from tasks.runtime.errors import UserError

FOLDER = Path("corrections")
KINDS = ("rows", "labels")


@dataclass(frozen=True, kw_only=True)
class Correction:
    """One row's cells that were wrong, and known to be from one night on."""

    kind: str
    """rows or labels."""
    row: str
    """The row's name: see `names`."""
    known: str
    """The as_of from which on the correction is known."""
    cells: dict[str, Any]
    """Column and value: text, a number or null."""


def file_of(product: str, day: date) -> Path:
    """Where the corrections of one day's rows lie."""
    return FOLDER / product / f"dt={day.isoformat()}.jsonl"


def lines_of(file: Path) -> Iterator[tuple[str, str]]:
    """Place and text of each line of a JSON Lines file: ended by \\n alone, as other ends may stand in a cell."""
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if line.strip():
            yield f"{file}:{number}", line


def read_corrections(file: Path) -> list[Correction]:
    """The corrections of one file. Raises UserError naming the line that is none."""
    found = []
    for place, line in lines_of(file):
        try:
            made = Correction(**json.loads(line))
            parse_date(made.known)
            if made.kind not in KINDS or any(isinstance(cell, dict | list) for cell in made.cells.values()):
                raise ValueError("kind must be rows or labels, and cells single values")
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{place}: a line must be a correction as make requeue writes it; {error}; mend or delete it"
            ) from None
        found.append(made)
    return found


def known_corrections(product: str, as_of: date) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """By kind and day, the cells of each corrected row that are known on `as_of`, the newest known of each."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for file in sorted((FOLDER / product).glob("dt=*.jsonl")):
        for each in sorted(read_corrections(file), key=lambda each: each.known):
            if each.known <= as_of.isoformat():
                rows = found.setdefault((each.kind, partition_day(file).isoformat()), {})
                rows[each.row] = {**rows.get(each.row, {}), **each.cells}
    return found


def read_corrected(
    files: list[Path], corrections: dict[tuple[str, str], dict[str, dict[str, Any]]], columns: list[str]
) -> pd.DataFrame:
    """Some columns of dates of raw rows or labels, with what was corrected; RAW_ROW names the rows that were.

    Raises UserError for a correction of a row that is not there.
    """
    table = read_partitions(files, columns).assign(**{RAW_ROW: None})
    concerned = [file for file in files if (file.parent.name, partition_day(file).isoformat()) in corrections]
    if concerned:
        table = table.astype(dict.fromkeys(columns, object))
    for file in concerned:
        day = partition_day(file).isoformat()
        places = dict(zip(names(read_table(file)), table.index[table["dt"] == day], strict=True))
        for row, cells in corrections[file.parent.name, day].items():
            if row not in places:
                raise UserError(
                    f"{FOLDER}/*/dt={day}.jsonl: a correction must be of a row that is stored, and {row} of "
                    f"{file.parent.name} is none; delete its line"
                )
            for name in cells.keys() & set(columns):  # what was corrected may be declared no longer
                table.loc[places[row], name] = cells[name]
            table.loc[places[row], RAW_ROW] = row
            table.loc[places[row], [name for name in UNREADABLE_COLUMNS if name in columns]] = None
    return table


def names(rows: pd.DataFrame) -> list[str]:
    """A name for each row of one raw file: a hash of its cells there, and its turn among equals.

    It depends on the file alone, which never changes, and not on the columns that are declared today. Of equal rows the
    last has turn 0, so that a row's name can be told without those before it.
    """
    return row_ids(rows, from_last=True).tolist()
