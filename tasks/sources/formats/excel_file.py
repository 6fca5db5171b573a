"""Read a sheet of a workbook (xlsx, xlsm, xlsb, xls, ods), whose cells have types: numbers, dates, words.

A workbook is one of the files that are held in memory whole: a sheet has at most 1,048,576 rows.
"""

import io
import json
from collections.abc import Collection, Iterator
from datetime import date, datetime, time, timedelta
from typing import IO

import pandas as pd

from tasks.params import ExcelSource
from tasks.sources.formats.pieces import RawPiece, Wanted, digest_of
from tasks.sources.formats.unreadable import UnreadableRow, with_unreadable

_EXACT = 2**53


def excel_pieces(file: IO[bytes], source: ExcelSource, wanted: Wanted) -> Iterator[RawPiece]:
    """Yield all rows of a sheet as one piece."""
    content = file.read()
    digest = digest_of(content)
    if wanted.is_known("0", digest):
        yield RawPiece(number="0", digest=digest, rows=None)
        return
    rows = read_excel(io.BytesIO(content), source, wanted.declared)
    yield RawPiece(number="0", digest=digest, rows=rows, n_rows=len(rows))


def read_excel(file: IO[bytes], source: ExcelSource, declared: Collection[str] = ()) -> pd.DataFrame:
    """Return the rows below the header, an empty cell or an error such as #N/A as missing; empty rows are none.

    Whole numbers are integers, since Excel knows no others; a formula is what it gave when the workbook was saved.
    Raises ValueError where the file is no workbook, the sheet is not there, or a `declared` column comes twice.
    """
    rows = _sheet(file, source)[source.skip_lines :]
    names = [_name(cell) for cell in rows[0]] if rows else []
    if not any(names):
        raise ValueError(f"row {source.skip_lines + 1} must name the columns, and is empty; set source.skip_lines")
    twice = sorted({name for name in names if names.count(name) > 1 and name in declared})
    if twice:
        raise ValueError(f"every column must be named once, got {twice} more than once; rename them")
    found: list[list[object]] = []
    unreadable: list[UnreadableRow] = []
    for number, row in enumerate(rows[1:], source.skip_lines + 2):
        beyond = [cell for cell, name in zip(row, names, strict=True) if not name and cell != ""]
        if beyond and len(beyond) == sum(cell != "" for cell in row):
            rule = "row: must have its cells below the header, and has them beside it"
            text = json.dumps([str(cell) for cell in row], ensure_ascii=False)
            unreadable.append(UnreadableRow(unreadable=rule, unreadable_line=number, unreadable_text=text))
        elif any(cell != "" for cell in row):
            found.append(row)
    places = {name: place for place, name in enumerate(names) if name and names.count(name) == 1}
    columns = {name: _column([row[place] for row in found]) for name, place in places.items()}
    return with_unreadable(pd.DataFrame(columns, index=range(len(found))), unreadable)


def _sheet(file: IO[bytes], source: ExcelSource) -> list[list[object]]:
    """Return all rows of the declared sheet, from the first on."""
    import python_calamine

    try:
        workbook = python_calamine.load_workbook(io.BytesIO(file.read()))
    except python_calamine.PasswordError:
        raise ValueError("it is a workbook with a password; save it without one") from None
    except (python_calamine.CalamineError, python_calamine.XmlError, python_calamine.ZipError) as error:
        raise ValueError(f"it is no workbook that can be read, or is damaged; {error}") from None
    names = workbook.sheet_names
    wanted = source.sheet
    if not names:
        raise ValueError("it has no sheet; write it anew")
    if wanted is None and len(names) > 1:
        raise ValueError(f"it has {len(names)} sheets; set source.sheet to one of {', '.join(map(repr, names))}")
    is_known = wanted in names if isinstance(wanted, str) else 0 <= (wanted or 0) < len(names)
    if not is_known:
        have = ", ".join(map(repr, names))
        raise ValueError(
            f"source.sheet must be one of its sheets, got {wanted!r}; use one of {have}, or a number from 0"
        )
    try:
        sheet = (
            workbook.get_sheet_by_name(wanted) if isinstance(wanted, str) else workbook.get_sheet_by_index(wanted or 0)
        )
        rows = sheet.to_python(skip_empty_area=False)
    except (python_calamine.CalamineError, python_calamine.XmlError, python_calamine.ZipError) as error:
        raise ValueError(f"its sheet cannot be read, or is damaged; {error}") from None
    return [list(row) for row in rows]


def _name(cell: object) -> str:
    """Return a column's name: a number or a date may head one too."""
    return str(_value(cell) or "").strip()


def _column(cells: list[object]) -> pd.Series:
    values = [_value(cell) for cell in cells]
    if any(isinstance(value, datetime) for value in values):  # beside those a day would lose its type, or they the hour
        values = [datetime(value.year, value.month, value.day) if type(value) is date else value for value in values]
    return pd.Series(values, dtype=object)


def _value(cell: object) -> object:
    """Return a cell as other sources deliver it."""
    if cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _EXACT:
        return int(cell)
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    return cell.isoformat() if isinstance(cell, time) else cell
