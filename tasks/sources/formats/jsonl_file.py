"""Read JSON Lines: one object a line.

A declared name such as `customer.city` or `items[0].price` is the value at that path, unless a key is called so. What
MongoDB writes as an object, such as {"$oid": "..."}, is the value that is meant.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import IO

import pandas as pd

from tasks.params import JsonlSource
from tasks.sources.formats.pieces import Cut, RawPiece, Wanted, count_of, digest_of, text_of
from tasks.sources.formats.unreadable import UnreadableRow, with_unreadable

_TWICE = "a name is given twice"


def jsonl_pieces(file: IO[bytes], source: JsonlSource, wanted: Wanted) -> Iterator[RawPiece]:
    """Yield an object per line, numbers with a point as text. Raises ValueError where no line is one."""
    cut = Cut(file, source.encoding)
    line, n_readable, first = 1, 0, None
    for number, data in enumerate(cut.pieces()):
        digest = digest_of(data)
        if wanted.is_known(str(number), digest):
            n_readable += 1
            yield RawPiece(number=str(number), digest=digest, rows=None)
        else:
            rows, unreadable = _parse(text_of(data, cut.encoding, line), line, wanted.declared)
            n_readable, first = n_readable + len(rows), first or next(iter(unreadable), None)
            frame = with_unreadable(pd.DataFrame(rows, dtype=object), unreadable)
            yield RawPiece(number=str(number), digest=digest, rows=frame, n_rows=len(frame))
        line += count_of(b"\n", data)
    if first and not n_readable:
        raise ValueError(f"line {first['unreadable_line']}: {first['unreadable']}, and no other line is one")


def _parse(text: str, line: int, declared: Collection[str]) -> tuple[list[dict[str, object]], list[UnreadableRow]]:
    r"""Return the objects of lines that are ended by \n alone, and the lines that are none; `line` is the first."""
    paths = {name: _path(name) for name in declared if re.search(r"[.\[]", name)}
    rows: list[dict[str, object]] = []
    unreadable: list[UnreadableRow] = []
    for number, content in enumerate(text.split("\n"), line):
        if not content.strip():
            continue
        try:
            # Numbers with a point stay text, which they are in the file: a float would lose digits.
            row = json.loads(content, parse_float=str, parse_constant=str, object_pairs_hook=_object)
            if not isinstance(row, dict):
                raise ValueError("must be an object")
            if "\\u" in content:
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
            at_paths = {name: _at(row, path) for name, path in paths.items() if name not in row}
            rows.append(row | {name: cell for name, cell in at_paths.items() if cell is not None})
        except (ValueError, RecursionError) as error:
            rule = "names a column twice" if error.args[0] == _TWICE else "is no JSON object"
            found = UnreadableRow(unreadable=f"row: {rule}", unreadable_line=number, unreadable_text=content.strip())
            unreadable.append(found)
    return rows, unreadable


def _object(pairs: list[tuple[str, object]]) -> object:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(_TWICE)
    if len(pairs) == 1 and pairs[0][0] in MEANT_BY_MONGO:
        return MEANT_BY_MONGO[pairs[0][0]](pairs[0][1])
    return made


def _path(name: str) -> list[str]:
    """Return the steps of a path.

    >>> _path("order.items[0].price"), _path("items.0")
    (['order', 'items', '0', 'price'], ['items', '0'])
    """
    return re.sub(r"\[([0-9]+)\]", r".\1", name).split(".")


def _at(row: object, path: Sequence[str]) -> object:
    """Return the value at a path of objects and lists, None where there is none; a name may hold dots itself."""
    if not path:
        return row
    if isinstance(row, list):
        return _at(row[int(path[0])], path[1:]) if path[0].isdecimal() and int(path[0]) < len(row) else None
    if not isinstance(row, dict):
        return None
    for n in range(len(path), 0, -1):
        name = ".".join(path[:n])
        if name in row:
            return _at(row[name], path[n:])
    return None


def flattened(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which each key of an object is a column of its own, called by its path."""
    while True:
        nested = [name for name in frame if _is_object(frame[name])]
        if not nested:
            return frame
        parts = [pd.DataFrame([cell or {} for cell in _or_none(frame[name])], dtype=object) for name in nested]
        parts = [part.add_prefix(f"{name}.") for name, part in zip(nested, parts, strict=True)]
        frame = pd.concat([frame.drop(columns=nested), *parts], axis=1)


def _is_object(cells: pd.Series) -> bool:
    known = cells.dropna() if cells.dtype == object else cells.head(0)
    return bool(len(known)) and all(isinstance(cell, dict) and cell for cell in known)


def _or_none(cells: pd.Series) -> list[object]:
    return [cell if isinstance(cell, dict) else None for cell in cells]


def _mongo_date(cell: object) -> object:
    """Return a moment as ISO 8601: MongoDB writes it so, or as milliseconds since 1970."""
    if not isinstance(cell, int):
        return cell
    try:
        return (datetime(1970, 1, 1) + timedelta(milliseconds=cell)).isoformat(timespec="milliseconds") + "Z"
    except OverflowError:  # a year that Python has not
        return f"{cell} milliseconds"


def _mongo_integer(cell: object) -> object:
    return int(cell) if isinstance(cell, str) and re.fullmatch("-?[0-9]{1,19}", cell) else cell


MEANT_BY_MONGO: dict[str, Callable[[object], object]] = {
    "$oid": lambda cell: cell,
    "$uuid": lambda cell: cell,
    "$symbol": lambda cell: cell,
    "$date": _mongo_date,
    "$numberInt": _mongo_integer,
    "$numberLong": _mongo_integer,
    "$numberDouble": lambda cell: cell,
    "$numberDecimal": lambda cell: cell,
    "$undefined": lambda cell: None,
}
"""By the only key of an object in MongoDB's extended JSON, the value that is meant; numbers with a point as text."""
