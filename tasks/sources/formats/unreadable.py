"""Mark rows that cannot be read: they are rows too, for `validate` to quarantine.

Such a row comes without cells, and with the reason in the columns UNREADABLE (`column: rule`), LINE and TEXT (its raw
text).
"""

import json
from typing import TypedDict

import numpy as np
import pandas as pd

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.runtime.errors import UserError

UNREADABLE, LINE, TEXT = UNREADABLE_COLUMNS
_CONTAINERS = (list, tuple, set, dict, np.ndarray, bytes, bytearray, memoryview)


class UnreadableRow(TypedDict):
    """A row that cannot be read; the keys are UNREADABLE_COLUMNS."""

    unreadable: str
    unreadable_line: int
    unreadable_text: str


def with_unreadable(frame: pd.DataFrame, unreadable: list[UnreadableRow]) -> pd.DataFrame:
    """Append the rows that cannot be read."""
    frame = frame.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore")  # the source's own are not declared
    if not unreadable:
        return frame
    return pd.concat([frame, pd.DataFrame(unreadable).astype({LINE: "Int64"})], ignore_index=True)


def mark_containers(frame: pd.DataFrame, product: Product, place: str) -> pd.DataFrame:
    """Mark rows with a list, an object or bytes in an input, which then holds JSON: no input is made of those.

    Raises UserError for a column that holds nothing else: no row would be left.
    """
    nested_columns = [name for name in product.input_columns if name in frame and _is_nested(frame[name])]
    if nested_columns:
        raise UserError(
            f"{place}: every column must hold single values, and all cells of {', '.join(nested_columns)} are lists, "
            "objects or bytes; declare a column of text, numbers or times, or take one out at the source"
        )
    for name in product.input_columns:
        if name not in frame or frame[name].dtype != object:
            continue
        nested = frame[name].map(lambda cell: isinstance(cell, _CONTAINERS))
        if nested.any():
            rule = f"{name}: is no single value"
            earlier = frame[UNREADABLE] if UNREADABLE in frame else pd.Series(None, frame.index, dtype=object)
            frame[UNREADABLE] = earlier.where(
                ~nested, earlier.map(lambda text: f"{text}; ", na_action="ignore").fillna("") + rule
            )
            as_json = frame.loc[nested, name].map(lambda cell: json.dumps(cell, ensure_ascii=False, default=_jsonable))
            frame[name] = frame[name].where(~nested, as_json)
    return frame


def _is_nested(column: pd.Series) -> bool:
    """Return whether a column has cells, and all of them are containers."""
    present = column.dropna() if column.dtype == object else column.head(0)
    return bool(len(present)) and bool(present.map(lambda cell: isinstance(cell, _CONTAINERS)).all())


def _jsonable(cell: object) -> object:
    return cell.tolist() if isinstance(cell, np.ndarray) else sorted(cell) if isinstance(cell, set) else str(cell)
