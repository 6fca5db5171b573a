"""Look at a file, a folder or a database for the `source` of the entry that `product` proposes.

What is guessed is how a file is put together: its kind, delimiter, lines before the header, comments, sheet and the
date in its name. How its cells are written is guessed by `source_form`.
"""

import csv
import re
from collections import Counter
from pathlib import Path

from tasks.runtime.errors import UserError
from tasks.sources.formats.compressed import decompressed, files_of

SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"), "excel"),
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
DELIMITERS = ",;\t|"
HEAD_BYTES = 65536
HEAD_ROWS = 50
"""So many lines or rows are looked at for the header."""
FILE_DATES = {"%Y%m%d": "[0-9]{8}", "%Y-%m-%d": "[0-9]{4}-[0-9]{2}-[0-9]{2}", "%Y_%m_%d": "[0-9]{4}_[0-9]{2}_[0-9]{2}"}


def look(address: str, table: str) -> dict[str, object]:
    """Return the entry's source. Raises UserError where no reader is for it."""
    if table:
        return {"kind": "sql", "url": address, "query": f"SELECT * FROM {table}"}
    files = _files(address)
    suffixes = [each.lower() for each in Path(files[0].partition("?")[0]).suffixes]
    kind = SUFFIXES.get(next((each for each in reversed(suffixes) if each not in COMPRESSED), ""))
    if kind is None:
        raise UserError(
            f"FROM must be a file that ends in {', '.join(SUFFIXES)} (and may be compressed), a folder of these, or "
            f"the SQLAlchemy URL of a database with TABLE=..., got {address!r}; save the rows as one of these"
        )
    found: dict[str, object] = {"kind": kind, "url": address}
    if kind == "csv":
        found |= _csv_form(files[0])
    elif kind == "excel":
        found |= _sheet(files[0])
    return found | (_date_in_names(files) if len(files) > 1 else {})


def _files(address: str) -> list[str]:
    """Return the files of a folder or pattern; the address itself where it is a file, or nothing."""
    try:
        return [file.url for file in files_of(address)]
    except Exception:
        return [address]  # the reader finds the words for it


def _date_in_names(files: list[str]) -> dict[str, object]:
    """Return the pattern of the date that all names of files hold."""
    names = [file.rpartition("/")[2] for file in files]
    forms = [form for form, digits in FILE_DATES.items() if all(_holds_one(name, digits) for name in names)]
    return {"file_date": forms[0]} if forms else {}


def _holds_one(name: str, digits: str) -> bool:
    return len(re.findall(f"(?<![0-9]){digits}(?![0-9])", name)) == 1


def _csv_form(address: str) -> dict[str, object]:
    """Return how a CSV file is put together, where that is not as it is expected."""
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            head = decompressed(file, random_access=False).read(HEAD_BYTES)
    except Exception:
        return {}  # the reader finds the words for it
    found: dict[str, object] = {}
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = head.decode(encoding) if encoding == "utf-16" else head[: head.rfind(b"\n") + 1].decode(encoding)
    except UnicodeDecodeError:
        encoding, text = "cp1252", head.decode("cp1252", "replace")
    if encoding != "utf-8-sig":
        found["encoding"] = encoding
    lines = text.splitlines()[:HEAD_ROWS]
    delimiter = max(DELIMITERS, key=lambda mark: _usual_cells(lines, mark))
    n_cells = _usual_cells(lines, delimiter)
    if delimiter != ",":
        found["delimiter"] = delimiter
    before = [line for line in lines if _n_cells(line, delimiter) != n_cells]
    if any(line.startswith("#") for line in before):
        found["comment"] = "#"
        lines = [line for line in lines if not line.startswith("#")]
    first = next((i for i, line in enumerate(lines) if _n_cells(line, delimiter) == n_cells), 0)
    if first and n_cells > 1:
        found["skip_lines"] = first + (0 if "comment" not in found else text.splitlines().index(lines[0]))
    header = next(csv.reader([lines[first]], delimiter=delimiter), []) if lines else []
    if len(header) > 1 and all(name.startswith(" ") for name in header[1:]):
        found["skip_space"] = True
    if re.search(rf'{re.escape(delimiter)}"[^"\n]*\\"', text):
        found["escape"] = "\\"
    return found


def _n_cells(line: str, delimiter: str) -> int:
    return len(next(csv.reader([line], delimiter=delimiter), []))


def _usual_cells(lines: list[str], delimiter: str) -> int:
    """Return the number of cells that most lines have."""
    counts = Counter(n for line in lines if (n := _n_cells(line, delimiter)))
    return max(counts, key=lambda n: (counts[n], n), default=0)


def _sheet(address: str) -> dict[str, object]:
    """Return the sheet with the most rows, where there are several, and how many lines are before its header."""
    import fsspec
    import python_calamine

    try:
        with fsspec.open(address, "rb") as file:
            workbook = python_calamine.load_workbook(decompressed(file, random_access=True))
        sheets = {name: workbook.get_sheet_by_name(name) for name in workbook.sheet_names}
        name = max(sheets, key=lambda each: sheets[each].total_height)
        rows = sheets[name].to_python(skip_empty_area=False, nrows=HEAD_ROWS)
    except Exception:
        return {}  # the reader finds the words for it
    widths = [sum(cell != "" for cell in row) for row in rows]
    first = widths.index(max(widths, default=0)) if widths else 0
    found: dict[str, object] = {"sheet": name} if len(sheets) > 1 else {}
    return {**found, "skip_lines": first} if first else found
