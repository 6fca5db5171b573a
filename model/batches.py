"""Batches of rows of similar length under a token budget, and their padding to rectangles.

Works in numpy alone, so that scoring with ONNX Runtime needs no torch.
"""

import numpy as np

from model.encoded import Encoded

Batch = dict[str, np.ndarray]


def batches(lengths: np.ndarray, batch_tokens: int, seed: int | None = None) -> list[np.ndarray]:
    """Row numbers of each batch; together they hold every row once.

    Longest rows first, so that memory runs out at the start or never; with a seed, rows of one length and
    the batches themselves come in an order fixed by it. A row longer than the budget gets a batch of its own.
    Shapes: lengths int [n]; returns int64 arrays.
    """
    rows = np.arange(len(lengths))
    random = np.random.default_rng(seed) if seed is not None else None
    if random is not None:
        random.shuffle(rows)
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    cut, start = [], 0
    while start < len(rows):
        n_rows = max(1, batch_tokens // int(lengths[rows[start]]))
        cut.append(rows[start : start + n_rows])
        start += n_rows
    if random is not None:
        random.shuffle(cut)
    return cut


def collate(encoded: Encoded, rows: np.ndarray, pad_id: int) -> Batch:
    """The given rows as the network's inputs; a kind of column that is absent has no entry.

    Shapes: categories int64 [b, c]; numbers float32 [b, m]; times float32 [b, t, 3]; text int64 [b, longest].
    """
    batch: Batch = {}
    for name in ("categories", "numbers", "times"):
        column = getattr(encoded, name)
        if column.shape[1]:
            batch[name] = column[rows]
    if encoded.text.size:
        batch["text"] = _padded(encoded, rows, pad_id)
    return batch


def _padded(encoded: Encoded, rows: np.ndarray, pad_id: int) -> np.ndarray:
    starts = encoded.offsets[rows]
    lengths = encoded.offsets[rows + 1] - starts
    inside = np.arange(lengths.max()) < lengths[:, None]
    text = np.full(inside.shape, pad_id, np.int64)
    first = np.cumsum(lengths) - lengths
    text[inside] = encoded.text[np.arange(lengths.sum()) + np.repeat(starts - first, lengths)]
    return text
