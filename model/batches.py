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

    Shapes: categories int64 [b, c]; numbers float32 [b, m]; times float32 [b, t, 3]; context float32 [b, k];
    text int64 [b, longest]; bag int64 and bag_weights float32 [b, largest], weight 0 where a bag is padded.
    """
    batch: Batch = {}
    for name in ("categories", "numbers", "times", "context"):
        column = getattr(encoded, name)
        if column.shape[1]:
            batch[name] = column[rows]
    if encoded.text.size:
        batch["text"] = _padded(encoded.text, encoded.offsets, rows, np.int64(pad_id))
    if encoded.bag_offsets.size:
        batch["bag"] = _padded(encoded.bag, encoded.bag_offsets, rows, np.int64(0))
        batch["bag_weights"] = _padded(encoded.bag_weights, encoded.bag_offsets, rows, np.float32(0))
    return batch


def _padded(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, padding: np.generic) -> np.ndarray:
    """The given rows of a ragged array as a rectangle of the padding's type, at least 1 wide."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    inside = np.arange(max(1, lengths.max())) < lengths[:, None]
    padded = np.full(inside.shape, padding)
    first = np.cumsum(lengths) - lengths
    padded[inside] = values[np.arange(lengths.sum()) + np.repeat(starts - first, lengths)]
    return padded
