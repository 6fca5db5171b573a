"""What names a row, and digests that stand for names where the names themselves would fill the memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.params import UNREADABLE_COLUMNS
from tasks.rows.casting import as_text

*_, RAW_TEXT_COLUMN = UNREADABLE_COLUMNS


def key_text(table: pd.DataFrame, key: Sequence[str]) -> pd.Series:
    """One text per row that names it, missing where a part of its key is; keys that differ have texts that differ."""
    *before, last = [as_text(table[name]) for name in key]
    text = pd.Series("", index=table.index, dtype="str")
    for part in before:
        text = text + part.str.len().astype("Int64").astype("str") + ":" + part
    return text + last


def digests(texts: pd.Series) -> np.ndarray:
    """The first 128 bits of each text's SHA-256; a missing text counts as empty. Shapes: uint64 [n, 2]."""
    joined = b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in texts.fillna("").tolist())
    return np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)


def seen_before(found: np.ndarray) -> np.ndarray:
    """Whether an earlier row has the same digest. Shapes: uint64 [n, 2] -> bool [n]."""
    suspects = pd.Series(found[:, 0]).duplicated(keep=False).to_numpy()
    result = np.zeros(len(found), bool)
    result[suspects] = pd.DataFrame(found[suspects]).duplicated().to_numpy()
    return result


def row_hashes(table: pd.DataFrame) -> list[int]:
    """64-bit hashes of the rows as text, so that they do not depend on the type a reader chose.

    A row that cannot be read is what stands there, wherever in the file it does.
    """
    if table.empty:
        return []
    cells = table.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore")
    texts = cells.apply(as_text).astype(object).where(cells.notna(), None)
    hashes = pd.util.hash_pandas_object(texts, index=False)
    if RAW_TEXT_COLUMN in table:
        text = table[RAW_TEXT_COLUMN]
        hashes = hashes.where(text.isna(), pd.util.hash_pandas_object(as_text(text).astype(object), index=False))
    return [int(value) for value in hashes]
