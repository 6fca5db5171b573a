"""Write and measure texts of rows with labels, beside a baseline: counted subwords, and how the row's text begins.

What foresees a label are counts of which subword follows which three, in the labels and texts of the training rows; it
reads no row. What is written is the beginning of the row's first text, as long as labels usually are: a text that makes
nothing up.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.features.kinds import TEXT, columns_of
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.model_inputs import SplitPart

if TYPE_CHECKING:
    import pandas as pd

    from model.evaluation.kneser_ney import KneserNey
    from model.scoring.generation import Writer

MAX_COUNTED_ROWS = 20_000
"""Rows of which texts are counted: their subwords lie in memory."""
_WORDS = re.compile(r"\S+")


@dataclass(frozen=True, kw_only=True)
class TextBaseline:
    """What is measured of a baseline, on rows of any part."""

    product: Product
    writer: "Writer"
    """Whose subwords are counted."""
    counts: "KneserNey"
    n_words: int
    """Of a label, usually."""

    def scores(self, table: dict[str, np.ndarray], wanted: np.ndarray) -> np.ndarray:
        """Return what `model.heads.generate.MEASURED` names. Shapes: object [n], the labels -> float32 [n, 4]."""
        from model.features.label_texts import LabelTexts
        from model.heads.generate import measured

        texts = LabelTexts.of(self.writer.tokenizer, wanted, self.writer.max_tokens)
        names = columns_of(self.product.columns, TEXT)
        begins = [_beginning(cell or "", self.n_words) for cell in table[names[0]]] if names else [""] * len(wanted)
        nats = np.array([self.counts.nats(text).sum() for text in texts])
        return measured(wanted, nats, texts.n_bytes, begins, table)


def fit_text_baseline(product: Product, splits: Path, writer: "Writer") -> TextBaseline:
    """Count the subwords of the training rows' labels and texts."""
    known, labels = model_inputs.split_part(splits, "train", product).sample(MAX_COUNTED_ROWS).with_known_labels(())
    print(f"fitting the baseline on {len(labels):,} rows", flush=True)
    n_words = int(np.median([len(_WORDS.findall(label)) for label in labels]))
    counts = _counted(product, known, labels, writer)
    return TextBaseline(product=product, writer=writer, counts=counts, n_words=n_words)


def measured_labels(writer: "Writer", rows: "pd.DataFrame", product: Product) -> np.ndarray:
    """Return what `model.heads.generate.MEASURED` names of rows that lie in no part, with their key and label.

    Texts are written where gates.metric asks for them alone.

    Shapes: float32 [n, 4].
    """
    from model.features.label_texts import LabelTexts
    from model.heads.generate import BITS_PER_BYTE, measured

    table, wanted, texts = (
        model_inputs.inputs(rows, product),
        model_inputs.targets(rows, product, ()),
        [None] * len(rows),
    )
    labels = LabelTexts.of(writer.tokenizer, wanted, writer.max_tokens)
    encoded = writer.features.encode(table)
    if product.gates.metric != BITS_PER_BYTE:
        texts = [each.text for each in model_inputs.written(writer, encoded, rows, product)]
    return measured(wanted, writer.nats(encoded, labels), labels.n_bytes, texts, table)


def _counted(product: Product, known: SplitPart, labels: np.ndarray, writer: "Writer") -> "KneserNey":
    from model.evaluation.kneser_ney import KneserNey
    from model.features.label_texts import LabelTexts

    sizes = writer.features.sizes
    found = list(LabelTexts.of(writer.tokenizer, labels, writer.max_tokens))
    for table in known:
        for name in columns_of(product.columns, TEXT):
            cells = [cell for cell in table[name] if cell]
            encoded = writer.tokenizer.encode_batch_fast(cells, add_special_tokens=False)
            found += [np.r_[each.ids, sizes.sep_id] for each in encoded]
    return KneserNey.fit(found, sizes.n_subwords, sizes.sep_id)


def _beginning(text: str, n_words: int) -> str:
    """Return the first words of a text."""
    ends = [word.end() for word in _WORDS.finditer(text)]
    return text[: ends[n_words - 1]] if len(ends) >= n_words > 0 else text
