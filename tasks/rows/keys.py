"""Name rows by their keys or their cells, and by digests where the names themselves would fill the memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.params import UNREADABLE_COLUMNS
from tasks.rows.casting import as_text

*_, RAW_TEXT_COLUMN = UNREADABLE_COLUMNS
_WHOLE, _WITH_POINT = r"-?(?:0|[1-9][0-9]*)", r"-?(?:0|[1-9][0-9]*)\.0+"


def key_text(table: pd.DataFrame, key: Sequence[str]) -> pd.Series:
    """Return one text per row, missing where a part of its key is; keys that differ have texts that differ.

    Each part but the last follows its length:

    >>> key_text(pd.DataFrame({"a": ["x", "x1"], "b": ["1:y", "y"]}), ["a", "b"]).tolist()
    ['1:x1:y', '2:x1y']
    """
    *before, last = [as_text(table[name]) for name in key]
    if not before:
        return last.rename(None)
    text = pd.Series("", index=table.index, dtype="str")
    for part in before:
        text = text + part.str.len().astype("Int64").astype("str") + ":" + part
    return text + last


def as_stored(cells: pd.Series, stored: pd.Series) -> tuple[pd.Series, int]:
    """Return keys as the stored ones are written, and how many were not: whole numbers with or without `.0`.

    A program that meets a gap turns integers into floats; whole numbers are the same keys either way.

    >>> as_stored(pd.Series(["1000.0", "7"]), pd.Series(["1000", "1001"]))[0].tolist()
    ['1000', '7']
    """
    texts, known = as_text(cells), as_text(stored).dropna()
    for is_stored, is_given, rewrite in (
        (_WHOLE, _WITH_POINT, lambda given: given.str.partition(".")[0]),
        (_WITH_POINT, _WHOLE, lambda given: given + ".0"),
    ):
        if len(known) and known.str.fullmatch(is_stored).all():
            given = texts.str.fullmatch(is_given, na=False)
            return (cells.astype(object).where(~given, rewrite(texts)), int(given.sum())) if given.any() else (cells, 0)
    return cells, 0


def digests(texts: pd.Series) -> np.ndarray:
    """Return the first 128 bits of each text's SHA-256; a missing text counts as empty. Shapes: uint64 [n, 2]."""
    sha256 = hashlib.sha256
    cells = pa.array(texts.fillna(""), pa.large_string()).cast(pa.large_binary()).to_numpy(zero_copy_only=False)
    joined = b"".join([sha256(cell).digest() for cell in cells])
    return np.frombuffer(joined, ">u8").reshape(-1, 4)[:, :2].astype(np.uint64)


_SEEDS = ("lamplighter-key1", "lamplighter-key2")


def key_digests(texts: pd.Series) -> np.ndarray:
    """Return 128 bits of each text, to find equal ones by; a missing text counts as empty. Shapes: uint64 [n, 2].

    Several times as fast as `digests`, which decide what must never change, such as the part of a row.
    """
    filled = texts.fillna("").to_numpy(dtype=object)
    return np.stack([pd.util.hash_array(filled, hash_key=seed, categorize=False) for seed in _SEEDS], axis=1)


def row_hashes(table: pd.DataFrame) -> list[int]:
    """Return 64-bit hashes of the rows as text, so that they do not depend on the type a reader chose.

    A row that cannot be read is hashed by its raw text, wherever in the file it is.
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


def row_ids(table: pd.DataFrame, *, from_last: bool = False, of: Sequence[object] | None = None) -> pd.Series:
    """Return an id per row: a hash of its cells and, for the second and later ones of equal rows, `#` and a number.

    `of` names the date of each row, where there are several: those of one are numbered.

    Equal rows are numbered from the first, so that ids stay when rows are appended, or with `from_last` from the last,
    so that the ids of a table's last rows need none of the earlier ones.

    >>> row_ids(pd.DataFrame({"a": ["x", "y", "x"]})).str.partition("#")[2].tolist()
    ['', '', '1']
    """
    hashes = pd.Series([f"{value:016x}" for value in row_hashes(table)], index=table.index, dtype="str")
    groups = [hashes] if of is None else [hashes, pd.Series([*map(str, of)], table.index)]
    number = hashes.groupby(groups).cumcount(ascending=not from_last).astype("str")
    return hashes.where(number == "0", hashes + "#" + number)


def content_of(row_id: pd.Series) -> pd.Series:
    """Return the part of each id of `row_ids` that equal rows share.

    >>> content_of(pd.Series(["00af", "00af#1"])).tolist()
    ['00af', '00af']
    """
    return row_id.str.partition("#")[0]
