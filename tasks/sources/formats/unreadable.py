"""Mark rows that cannot be read: they are rows too, for `validate` to quarantine.

Such a row comes without cells, and with the reason in the columns UNREADABLE (`column: rule`), LINE and TEXT (its raw
text).
"""

import json
from typing import TypedDict

import numpy as np
import pandas as pd

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.sources.formats.evidence import containers, is_container

UNREADABLE, LINE, TEXT = UNREADABLE_COLUMNS


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


def mark_containers(frame: pd.DataFrame, product: Product) -> tuple[pd.DataFrame, dict[str, int]]:
    """Mark rows with a list, an object or bytes in an input, which then holds JSON: no input is made of those.

    Beside them come the counts by which `Evidence` finds a column that holds nothing else: no row would be left.
    """
    counts: dict[str, int] = {}
    for name in product.stored_columns:
        if name not in frame:
            continue
        counts |= containers(frame[name], name)
        if counts.get(f"nested {name}"):
            nested = frame[name].map(is_container)
            rule = f"{name}: is no single value"
            earlier = frame[UNREADABLE] if UNREADABLE in frame else pd.Series(None, frame.index, dtype=object)
            frame[UNREADABLE] = earlier.where(
                ~nested, earlier.map(lambda text: f"{text}; ", na_action="ignore").fillna("") + rule
            )
            as_json = frame.loc[nested, name].map(lambda cell: json.dumps(cell, ensure_ascii=False, default=_jsonable))
            frame[name] = frame[name].where(~nested, as_json)
    return frame, counts


def _jsonable(cell: object) -> object:
    return cell.tolist() if isinstance(cell, np.ndarray) else sorted(cell) if isinstance(cell, set) else str(cell)
