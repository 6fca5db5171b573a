"""Say what is to be erased, and find it: in tables by column and key, in other files by the bytes that would show it.

What is erased is a set of rows: those whose cells have the given values, with every version of theirs, and whatever
carries their keys. A file is looked into by its reader where there is one: Parquet by its columns, every page decoded;
JSON, indexes of keys and others by their bytes.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.publication.object_store import Store
from tasks.publication.salts.table import SaltTable
from tasks.rows.intake.erased import keyed_hash, meaning, words_of
from tasks.rows.keys import key_digests, key_text
from tasks.rows.personal_data import protect
from tasks.runtime.errors import UserError

*_, RAW_TEXT = UNREADABLE_COLUMNS
ROWS_AT_ONCE = 131_072
LEAST_CHARACTERS = 5
"""A shorter text stands in many files that have nothing to do with it: it is looked for in columns alone."""


@dataclass
class Subject:
    """What is to be erased of a product."""

    product: Product
    """The product."""
    values: Mapping[str, str]
    """By column, the value that its rows have, as it is stored."""
    secret: bytes
    """The key of the hashes."""
    keys: set[str] = field(default_factory=set)
    """The keys of its rows, as far as they were found, as text."""
    hashes: set[str] = field(default_factory=set)
    """The keyed hashes of keys that an earlier try has found, and that may be in no other file any more."""

    @cached_property
    def hmac(self) -> str:
        """Return the keyed hash by which it is known when all of it is gone."""
        return keyed_hash(self.secret, self.product.name, self.values)

    @property
    def is_of_keys(self) -> bool:
        """Return whether the values are those of a whole key, so that keys need not be looked for."""
        return {*self.product.key} <= self.values.keys()

    def hash_of(self, key: str) -> str:
        """Return the keyed hash of a row's key, for the journal."""
        return keyed_hash(self.secret, self.product.name, {"\0key": key})

    def forget_found(self) -> None:
        """Forget patterns that were made before all keys were known."""
        self.__dict__.pop("_pattern", None)

    def is_in(self, rows: pd.DataFrame) -> np.ndarray:
        """Return which rows are to be erased, by the columns that they have. Shapes: bool [n]."""
        found = np.zeros(len(rows), bool)
        if all(name in rows for name in self.values):
            found |= self._has_values(rows)
        if all(name in rows for name in self.product.key) and (self.keys or self.hashes):
            found |= self._has_keys(rows)
        if RAW_TEXT in rows:
            found |= np.array([self._is_named(text) for text in rows[RAW_TEXT]], bool)
        return found

    def learn_keys(self, rows: pd.DataFrame) -> None:
        """Note the keys of the rows that have the values."""
        if all(name in rows for name in (*self.values, *self.product.key)):
            self.keys |= {*_keys(rows[self._has_values(rows)], self.product).dropna()}

    def _has_values(self, rows: pd.DataFrame) -> np.ndarray:
        found = np.ones(len(rows), bool)
        for name, value in self.values.items():
            found &= (meaning(rows[name]) == value).fillna(False).to_numpy(bool)
        return found

    def _has_keys(self, rows: pd.DataFrame) -> np.ndarray:
        keys = _keys(rows, self.product)
        if not self.hashes:
            return keys.isin(self.keys).to_numpy(bool)
        known = {key: self.hash_of(key) in self.hashes for key in keys.dropna().unique()}
        return keys.isin(self.keys | {key for key, is_known in known.items() if is_known}).to_numpy(bool)

    def _is_named(self, text: object) -> bool:
        if len(self.values) > 1 or not isinstance(text, str):
            return False
        return next(iter(self.values.values())) in words_of(text)

    def of_table(self, table: pa.Table) -> np.ndarray:
        """Return which rows of a table are to be erased. Shapes: bool [n]."""
        names = [*self.values, *self.product.key, RAW_TEXT]
        return self.is_in(_frame(table, names))

    def is_in_file(self, file: Path) -> bool:
        """Return whether a file holds anything of it, by its reader, and of other files by their bytes."""
        with file.open("rb") as opened:
            begins = opened.read(4)
        if begins == b"PAR1":
            return any(self.is_in(rows).any() for rows in _frames(file, [*self.values, *self.product.key, RAW_TEXT]))
        content = file.read_bytes()
        if not self.is_in_bytes(content):
            return False
        try:  # a count that reads like a key is none
            return begins[:1] not in (b"{", b"[") or shows(json.loads(content), self)
        except ValueError:
            return True

    def is_in_bytes(self, content: bytes) -> bool:
        """Return whether bytes show it: its values and keys as text, or the digests of keys."""
        return self._pattern is not None and self._pattern.search(content) is not None

    def places_in(self, content: bytes) -> list[tuple[int, int]]:
        """Return where bytes show it: the first place of each, and the one after its last."""
        return [found.span() for found in self._pattern.finditer(content)] if self._pattern else []

    def learn_from(self, file: Path) -> None:
        """Note the keys of the rows that a Parquet file holds of it."""
        with file.open("rb") as opened:
            is_parquet = opened.read(4) == b"PAR1"
        for rows in _frames(file, [*self.values, *self.product.key]) if is_parquet else ():
            self.learn_keys(rows)

    @property
    def texts(self) -> list[str]:
        """Return the texts that would show it: values and keys, of several parts each part that is no mere number."""
        texts = {*self.values.values(), *(self.keys if len(self.product.key) == 1 else ())}
        return sorted(text for text in texts if len(text) >= LEAST_CHARACTERS)

    @cached_property
    def _pattern(self) -> "re.Pattern[bytes] | None":
        words = {form.encode() for text in self.texts for form in written(text)}
        parts = [rb"(?<![0-9A-Za-z_])(?:" + b"|".join(map(re.escape, sorted(words))) + rb")(?![0-9A-Za-z_])"]
        learnt = {word for text in self.texts for word in in_vocabulary(text)}
        parts += [re.escape(word.encode()) + rb"(?![0-9A-Za-z_])" for word in sorted(learnt)]
        digests = key_digests(pd.Series(sorted(self.keys), dtype="str"))[:, 0].astype("<u8")
        parts = (parts if words else []) + [re.escape(each.tobytes()) for each in digests]
        return re.compile(b"|".join(parts), re.DOTALL) if parts else None

    def without(self, text: str) -> str:
        """Return a text in which nothing shows it."""
        for each in self.texts:
            for form in written(each):
                text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", "(erased)", text)
        return text


def shows(content: Any, subject: Subject) -> bool:
    """Return whether a text in JSON, or a name, shows what is to be erased; a number does not."""
    if isinstance(content, dict):
        return any(shows(name, subject) or shows(each, subject) for name, each in content.items())
    if isinstance(content, list):
        return any(shows(each, subject) for each in content)
    return isinstance(content, str) and subject.is_in_bytes(content.encode())


def written(text: str) -> set[str]:
    """Return how a text may be written: as it is, in JSON, in HTML."""
    return {text, json.dumps(text)[1:-1], html.escape(text), json.dumps(html.escape(text))[1:-1]}


def in_vocabulary(text: str) -> set[str]:
    """Return how a text that is one word stands in a vocabulary of subwords that was learnt from texts with it.

    >>> in_vocabulary("Zäbriskie")
    {'▁zabriskie'}
    """
    from model.features.subwords import train_tokenizer

    words = train_tokenizer([f"{text} {text}"]).encode(text).tokens
    return {*words} if len(words) == 1 else set()


def subject_of(product: Product, key: str, secret: bytes) -> Subject:
    """Return what a person asks to have erased: a key, `column=value`, or values by column as JSON.

    Raises UserError where that is none, or names a column that no row is stored with.
    """
    values = values_of(product, key)
    columns = {*product.stored_columns}
    unknown = sorted(values.keys() - columns)
    if unknown or not values or not all(str(value).strip() for value in values.values()):
        raise UserError(
            f"KEY must be a key of {product.name}, or column=value with one of its stored columns "
            f"({', '.join(product.stored_columns)}); got {', '.join(unknown) or 'no value'}; write KEY=column=value, "
            """or KEY='{"column": "value", ...}' for several"""
        )
    dropped = sorted(name for name in values if product.pii.get(name) in ("drop", "redact"))
    if dropped:
        raise UserError(
            f"KEY must name a column that is stored as it came, and pii says otherwise of {', '.join(dropped)}: rows "
            "cannot be found by it; name their key"
        )
    cells = pd.DataFrame([values], dtype=object)
    hashed = {name: way for name, way in product.pii.items() if name in values}
    if hashed:
        cells = protect(cells, replace(product, pii=hashed), SaltTable(Store(product.publish.url), product.name).known)
    if not len(cells):
        raise UserError(
            f"KEY must be of somebody whom {product.name} knows, and no stored row can be of this one: it has no salt; "
            "it never came, is written otherwise at the source, or was forgotten (make forget)"
        )
    stored = {str(name): str(meaning(cells[name].astype("str")).iloc[0]) for name in cells}
    subject = Subject(product=product, values=stored, secret=secret)
    if subject.is_of_keys:
        subject.keys = {str(each) for each in _keys(pd.DataFrame([stored], dtype=object), product)}
    return subject


def values_of(product: Product, key: str) -> dict[str, str]:
    """Return the values by column that KEY names. Raises UserError where it names none."""
    key = key.strip()
    if key.startswith("{"):
        try:
            return {str(name): str(value) for name, value in json.loads(key).items()}
        except (ValueError, AttributeError):
            raise UserError("KEY must be a JSON object of values by column, and is none; mend it") from None
    name, sign, value = key.partition("=")
    if sign and name in product.stored_columns:
        return {name: value}
    if not product.has_key:
        raise UserError(
            f"products.{product.name} has no key that its source knows: KEY must be column=value; all rows with that "
            "value are erased"
        )
    if len(product.key) > 1:
        parts = ", ".join(f'"{each}": "..."' for each in product.key)
        raise UserError(f"products.{product.name} has a key of several parts: write KEY='{{{parts}}}'")
    return {product.key[0]: key}


def _keys(rows: pd.DataFrame, product: Product) -> pd.Series:
    return key_text(pd.DataFrame({name: meaning(rows[name]) for name in product.key}), product.key)


def _frames(file: Path, names: Iterable[str]) -> Iterator[pd.DataFrame]:
    """Yield some columns of a Parquet file, piece by piece; a column of two types in a month's file is one."""
    wanted = {*names}
    with pq.ParquetFile(file, page_checksum_verification=True) as opened:
        columns = [each for each in opened.schema_arrow.names if each.partition("\x1f")[0] in wanted]
        for batch in opened.iter_batches(ROWS_AT_ONCE, columns=columns) if columns else ():
            yield _frame(pa.Table.from_batches([batch]), wanted)


def _frame(table: pa.Table, names: Iterable[str]) -> pd.DataFrame:
    """Return some columns of a table as pandas; of those of two types the cell that is there."""
    wanted, found = {*names}, dict[str, pd.Series]()
    for place, name in enumerate(table.column_names):
        base = name.partition("\x1f")[0]
        if base in wanted:
            cells = table.column(place).to_pandas(integer_object_nulls=True)
            found[base] = meaning(found[base]).fillna(meaning(cells)) if base in found else cells
    return pd.DataFrame(found) if found else pd.DataFrame(index=range(len(table)))
