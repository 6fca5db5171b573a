"""Learn to go on with the rows' own texts, before any label is read: next-subword prediction, as of GPT.

A text is cut into passages. What stands before a passage in its text is, with the row's other cells, the row that is
read; the passage is what is learnt, as a label is. So all parts of a network that writes are trained, the copying too,
and the last passage of a text teaches where one ends.

Source: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", section 3.1.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Unpack

import numpy as np

from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import TEXT, columns_of
from model.features.label_texts import LabelTexts
from model.heads.generate import BITS_PER_BYTE
from model.network.network import Network
from model.settings import NetworkSettings, PretrainingSettings
from model.target import Target
from model.training.generation.labels import learn_labels
from model.training.optimisation import Course, History

READ_BEFORE = 2
"""Passages before one that are read with it."""
_WORD = re.compile(r"\S+")

OnDisk = Callable[[Iterable[Encoded]], Encoded]
"""What puts encoded pieces end to end."""


def learn_continuations(
    features: Features,
    rows: Iterable[Table],
    validation: Iterable[Table],
    target: Target,
    network_settings: NetworkSettings,
    settings: PretrainingSettings,
    *,
    on_disk: OnDisk,
    **course: Unpack[Course],
) -> tuple[Network, History]:
    """Return a network that has learnt to go on with texts, with the decoder that labels go on from.

    The history has an entry for each epoch: the losses in nats per subword, that of `validation` in bits per byte too.
    Rows without a word teach nothing: then the weights are random ones, and there is no history.
    Raises: FloatingPointError when the loss is no longer finite.
    """
    network = Network(network_settings, features.sizes, target, seed=settings.seed)
    learnt, held_out = (passages(features, tables, target.max_tokens, on_disk) for tables in (rows, validation))
    if learnt is None or held_out is None:
        return network, []
    course.setdefault("name", "pretrain")
    network, history = learn_labels(network, learnt, held_out, settings, **course)
    of_bytes = len(held_out[1].ids) / math.log(2) / max(1, int(held_out[1].n_bytes.sum()))
    return network, [{**entry, BITS_PER_BYTE: entry["val_loss"] * of_bytes} for entry in history]


def passages(
    features: Features, tables: Iterable[Table], max_tokens: int, on_disk: OnDisk
) -> tuple[Encoded, LabelTexts] | None:
    """Return the passages of all texts with the rows that stand before them; None where there is no word."""
    names, texts = columns_of(features.kinds, TEXT), list[str]()

    def encoded() -> Iterator[Encoded]:
        for table in tables:
            cut = [each for name in names for each in _cut(table, name, max_tokens)]
            if cut:
                row, name_of, before, text = (list(part) for part in zip(*cut, strict=True))
                texts.extend(text)
                yield features.encode(_with_beginnings(table, np.array(row), names, name_of, before))

    pieces = encoded()
    first = next(pieces, None)
    if first is None:
        return None
    whole = on_disk(chain([first], pieces))
    return whole, LabelTexts.of(features.tokenizer, np.array(texts, object), max_tokens)


def _cut(table: Table, name: str, n_words: int) -> Iterator[tuple[int, str, str, str]]:
    """Yield the passages of a column's texts: row, column, what stands before, and the passage.

    >>> [cut[2:] for cut in _cut({"body": np.array(["a b c d e", None], object)}, "body", 2)]
    [('', 'a b'), ('a b', 'c d'), ('a b c d', 'e')]
    """
    for row, text in enumerate(table[name]):
        spans = [word.span() for word in _WORD.finditer(text or "")]
        for first in range(0, len(spans), n_words):
            begin, last = spans[max(0, first - READ_BEFORE * n_words)][0], spans[min(first + n_words, len(spans)) - 1]
            before = text[begin : spans[first - 1][1]] if first else ""
            yield row, name, before, text[spans[first][0] : last[1]]


def _with_beginnings(
    table: Table, row: np.ndarray, names: Collection[str], name_of: list[str], before: list[str]
) -> Table:
    """Return the rows of passages: what stands before in the passage's own column, nothing in other texts."""
    of, read = np.array(name_of, object), {name: column[row] for name, column in table.items()}
    for name in names:
        read[name] = np.array([text or None for text in before], object)
        read[name][of != name] = None
    return read
