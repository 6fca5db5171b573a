"""A row as a text that a language model goes on with: a line for each column, and a last one that asks for the label.

    topic: sport
    body: Arsenal's captain was sent off ...
    headline:

Lines that are too long together are cut, the longest first. A cell is one line, whatever stands in it, lest it writes
lines of its own; and no text of a cell is read as the end of the whole.
"""

from collections.abc import Mapping

import numpy as np
from tokenizers import Tokenizer

from model.features.fitting import Table
from model.features.kinds import TEXT, kind_class
from model.features.subwords import join, special_ids, tokenise


def encode_prompts(
    tokenizer: Tokenizer, kinds: Mapping[str, str], label: str, table: Table, max_tokens: int
) -> dict[str, np.ndarray]:
    """Return rows as the ragged arrays of one text each, without the end of the last line: a label begins with that.

    Shapes: as of `model.features.kinds.text.Text`, in one window.
    """
    n_rows = len(table[next(iter(kinds))])
    lines = [_lines(name, table[name]) for name in kinds] + [np.full(n_rows, f"{label}:", object)]
    pieces = tokenise(tokenizer, lines, max_tokens)
    ids, offsets, _ = join(pieces, max_tokens, special_ids(tokenizer)["begin"])
    return {kind_class(TEXT).input: np.delete(ids, offsets[1:] - 1), "offsets": offsets - np.arange(n_rows + 1)}


def _lines(name: str, column: np.ndarray) -> np.ndarray:
    """Return what is said of each cell of a column.

    >>> _lines("kg", np.array([2.5, np.nan])).tolist()
    ['kg: 2.5', 'kg:']
    """
    lines = np.empty(len(column), object)
    lines[:] = [f"{name}: {text}" if (text := _text(cell)) else f"{name}:" for cell in column]
    return lines


def _text(cell: object) -> str:
    """Return a cell as it is written; a missing one as nothing."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return "" if np.isnan(cell) else f"{cell:.10g}"
    if isinstance(cell, np.datetime64):
        return "" if np.isnat(cell) else str(cell).replace("T", " ")
    return " ".join(str(cell).split())
