"""Read JSON Lines: one object a line."""

import io
import json
from collections.abc import Iterator

import pandas as pd

from tasks.params import JsonlSource
from tasks.sources.formats.text_file import no_text, open_text
from tasks.sources.formats.unreadable import UnreadableRow, with_unreadable

_TWICE = "a name is given twice"


def read_jsonl(file: io.BufferedReader, source: JsonlSource) -> pd.DataFrame:
    """Return an object per line, numbers with a point as text. Raises ValueError where no line is one."""
    rows: list[dict[str, object]] = []
    unreadable: list[UnreadableRow] = []
    for number, line in enumerate(_lines(file, source), 1):
        if not line.strip():
            continue
        try:
            # Numbers with a point stay text, which they are in the file: a float would lose digits.
            row = json.loads(line, parse_float=str, parse_constant=str, object_pairs_hook=_object)
            if not isinstance(row, dict):
                raise ValueError("must be an object")
            if "\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is no text
            rows.append(row)
        except (ValueError, RecursionError) as error:
            rule = "names a column twice" if error.args[0] == _TWICE else "is no JSON object"
            text = line.strip()
            unreadable.append(UnreadableRow(unreadable=f"row: {rule}", unreadable_line=number, unreadable_text=text))
    if unreadable and not rows:
        first = unreadable[0]
        raise ValueError(f"line {first['unreadable_line']}: {first['unreadable']}, and no other line is one")
    return with_unreadable(pd.DataFrame(rows, dtype=object), unreadable)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(_TWICE)
    return made


def _lines(file: io.BufferedReader, source: JsonlSource) -> Iterator[str]:
    r"""Yield lines as JSON Lines means them: ended by \n alone. Raises ValueError where bytes are no text."""
    number = 0
    text = open_text(file, source, newline="\n")
    try:
        for number, line in enumerate(text, 1):  # noqa: B007 (named where it fails)
            yield line
    except UnicodeDecodeError as error:
        raise no_text(error, number) from None
