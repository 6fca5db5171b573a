"""Know what people had erased, without knowing what it was, and keep it from coming back from the source.

    decisions/<product>/erased.json      what was erased: columns, a keyed hash, who decided, when and why
    <LAMPLIGHTER_HOME>/erasure.key       the key of the hashes: mode 600, made once, never in git

`make erase` writes the first, and a person commits it, so that it travels with every clone. The key does not: a machine
that ingests needs a copy of it, or the same text in LAMPLIGHTER_ERASURE_KEY. Whoever has the file and not the key can
try no value.
"""

import hmac
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from tasks.params import UNREADABLE_COLUMNS
from tasks.rows.casting import as_text
from tasks.rows.decisions import FOLDER
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file, write_json
from tasks.runtime.records import RECORD, Record
from tasks.runtime.settings import settings

FILE, KEY_FILE, VARIABLE = "erased.json", "erasure.key", "LAMPLIGHTER_ERASURE_KEY"
*_, RAW_TEXT = UNREADABLE_COLUMNS
_WHOLE = r"^([+-]?[0-9]+)\.0+$"
_WORD = re.compile(r"[^\s,;|\"'=:<>(){}\[\]]+")
"""What may be a cell in the text of a row that could not be read."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Tombstone(Record):
    """What stays of something that was erased."""

    columns: tuple[str, ...]
    """The columns by which rows were chosen."""
    hmac: str
    """HMAC-SHA256 of product, columns and values, in hex."""
    decided: str
    """The date of the decision, YYYY-MM-DD."""
    person: str
    """The person who decided."""
    why: str
    """The reason."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Tombstones(Record):
    """The content of decisions/<product>/erased.json."""

    key: str = ""
    """What tells the key of the hashes from another one: the HMAC of no value."""
    erased: tuple[Tombstone, ...] = field(default_factory=tuple)
    """Everything that was erased, the oldest first."""

    @classmethod
    def read(cls, file: Path) -> "Tombstones":
        """Return what a file says; nothing where there is none. Raises UserError where it is damaged."""
        try:
            return cls.from_json(file.read_bytes()) if file.exists() else cls()
        except ValueError as error:
            raise UserError(
                f"{file}: must be as make erase wrote it, and is not ({' '.join(str(error).split()[:12])}); restore it "
                "from git: without it what was erased comes back"
            ) from None

    def write(self, file: Path) -> None:
        """Write the file."""
        write_json(file, self.to_json())


def file_of(product: str) -> Path:
    """Return the file with what was erased of a product."""
    return FOLDER / product / FILE


def meaning(cells: pd.Series) -> pd.Series:
    """Return one text for cells that mean the same: whole numbers are written without a point.

    >>> meaning(pd.Series(["7.0", "07", "x"])).tolist()
    ['7', '07', 'x']
    """
    texts = as_text(cells)
    return texts.str.replace(_WHOLE, r"\1", regex=True) if texts.str.endswith("0", na=False).any() else texts


def known_key() -> bytes | None:
    """Return the key of the hashes; None where this machine has none."""
    file = settings().home / KEY_FILE
    text = os.environ.get(VARIABLE) or (file.read_text("ascii").strip() if file.exists() else "")
    return text.encode() or None


def made_key() -> bytes:
    """Return the key of the hashes, made now where this machine has none."""
    if (known := known_key()) is not None:
        return known
    with atomic_file(settings().home / KEY_FILE) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32) + "\n", "ascii")
    return known_key() or b""


def keyed_hash(key: bytes, product: str, values: Mapping[str, str]) -> str:
    """Return the HMAC-SHA256 of values by column, in hex; of no values it is what tells a key from another one."""
    text = json.dumps([product, sorted(values.items())], ensure_ascii=False)
    return hmac.digest(key, text.encode(), "sha256").hex()


def checked_key(product: str, stones: Tombstones) -> bytes:
    """Return the key that a product's tombstones were made with. Raises UserError where this machine lacks it."""
    key = known_key()
    if key is None or keyed_hash(key, product, {}) != stones.key:
        raise UserError(
            f"{file_of(product)}: rows were erased, and the key by which they are known must be on this machine, and "
            f"{'is not' if key is None else 'another one is'}; copy {settings().home / KEY_FILE} from the machine that "
            f"erased them, or set {VARIABLE} to its text: without it they would come back"
        )
    return key


class Erased:
    """Everything that was erased of a product, as `ingest` asks for it."""

    def __init__(self, product: str, folder: Path = Path()) -> None:
        """Read what was erased, in a clone. Raises UserError where the key is not that of the hashes."""
        self._product, stones = product, Tombstones.read(folder / file_of(product))
        self._key = checked_key(product, stones) if stones.erased else b""
        self._by_columns: dict[tuple[str, ...], set[str]] = {}
        for stone in stones.erased:
            self._by_columns.setdefault(stone.columns, set()).add(stone.hmac)

    def among(self, rows: pd.DataFrame) -> np.ndarray:
        """Return which rows were erased; of those that cannot be read, whose text names it. Shapes: bool [n]."""
        found = np.zeros(len(rows), bool)
        for columns, known in self._by_columns.items():
            if all(name in rows for name in columns):
                found |= self._are_known(rows, columns, known)
            if len(columns) == 1 and RAW_TEXT in rows:
                found |= self._are_named(rows[RAW_TEXT], columns[0], known)
        return found

    def _are_known(self, rows: pd.DataFrame, columns: Sequence[str], known: set[str]) -> np.ndarray:
        texts = pd.DataFrame({name: meaning(rows[name]) for name in columns})
        distinct = texts.dropna().drop_duplicates()
        named = ({str(name): str(cell) for name, cell in row.items()} for row in distinct.to_dict("records"))
        hashes = (keyed_hash(self._key, self._product, values) for values in named)
        is_known = np.fromiter((each in known for each in hashes), bool, len(distinct))
        if not is_known.any():
            return np.zeros(len(rows), bool)
        wanted = {tuple(row) for row in distinct[is_known].itertuples(index=False)}
        return np.array([tuple(row) in wanted for row in texts.itertuples(index=False)], bool)

    def _are_named(self, texts: pd.Series, column: str, known: set[str]) -> np.ndarray:
        return np.array(
            [
                any(keyed_hash(self._key, self._product, {column: word}) in known for word in words_of(text))
                for text in texts
            ],
            bool,
        )


def words_of(text: object) -> Iterable[str]:
    """Return what may be cells in the text of a row that could not be read."""
    return _WORD.findall(text) if isinstance(text, str) else []
