"""Batches of rows of similar length under a token budget, and their padding to rectangles.

Works in numpy alone, so that scoring with ONNX Runtime needs no torch.
"""

import numpy as np

from model.features.encoded import Encoded

Batch = dict[str, np.ndarray]
INPUTS = ("categories", "numbers", "times", "text")
"""What the encoder reads of a batch, window by window."""
MOST_WINDOWS = 2048
"""Of a batch: what says whose each window is, is a matrix, and grows with their square where rows are short."""


def batches(
    encoded: Encoded, batch_tokens: int, seed: int | None = None, chosen: np.ndarray | None = None
) -> list[np.ndarray]:
    """Row numbers of each batch, or positions in `chosen`, if only those rows are wanted; together they hold all once.

    Longest rows first (of the longest windows, and of those the ones with most), so that memory runs out at the start
    or never; with a seed, rows that are alike in that and the batches themselves come in an order fixed by it, and
    every seed makes as many batches. A row longer than the budget gets a batch of its own.
    Shapes: returns int64 arrays.
    """
    lengths = encoded.lengths if chosen is None else encoded.lengths[chosen]
    rows = np.arange(len(lengths))
    random = np.random.default_rng(seed) if seed is not None else None
    if random is not None:
        random.shuffle(rows)
    if encoded.window_offsets.size:
        n_windows = encoded.n_windows if chosen is None else encoded.n_windows[chosen]
        rows = rows[np.lexsort((-n_windows[rows], -lengths[rows]))]
        before, most_windows = np.r_[0, np.cumsum(n_windows[rows])], MOST_WINDOWS
    else:
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        before, most_windows = np.arange(len(rows) + 1), len(rows)
    cut, start = [], 0
    while start < len(rows):
        most = min(most_windows, batch_tokens // int(lengths[rows[start]]))
        end = max(start + 1, int(np.searchsorted(before, before[start] + most, "right")) - 1)
        cut.append(rows[start:end])
        start = end
    if random is not None:
        random.shuffle(cut)
    return cut


def collate(encoded: Encoded, rows: np.ndarray, pad_id: int) -> Batch:
    """The given rows as the network's inputs; a kind of column that is absent has no entry.

    Shapes: b rows in w windows, w = b without windows; categories int64 [w, c]; numbers float32 [w, m]; times float32
    [w, t, 3]; text int64 [w, longest]; windows float32 [b, w], 1 where a row has the window; context float32 [b, k];
    bag int64 and bag_weights float32 [b, largest], weight 0 where a bag is padded. Where it is known what the encoder
    says of them, pooled float32 [b, d] stands for all that it reads.
    """
    if encoded.pooled.size:
        return {"pooled": encoded.pooled[rows], **_beside(encoded, rows)}
    batch: Batch = {}
    windows = whose = rows
    if encoded.window_offsets.size:
        n_windows = encoded.window_offsets[rows + 1] - encoded.window_offsets[rows]
        windows, whose = _positions(encoded.window_offsets[rows], n_windows), np.repeat(rows, n_windows)
        batch["windows"] = np.repeat(np.eye(len(rows), dtype=np.float32), n_windows, axis=1)
    for name in ("categories", "numbers", "times"):
        column = getattr(encoded, name)
        if column.shape[1]:
            batch[name] = column[whose]
    if encoded.text.size:
        batch["text"] = _padded(encoded.text, encoded.offsets, windows, np.int64(pad_id))
    return batch | _beside(encoded, rows)


def _beside(encoded: Encoded, rows: np.ndarray) -> Batch:
    """What is read beside the encoder."""
    batch: Batch = {}
    if encoded.context.shape[1]:
        batch["context"] = encoded.context[rows]
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
    padded[inside] = values[_positions(starts, lengths)]
    return padded


def _positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where what lies at each start stands in a ragged array, one after the other."""
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - first, lengths)
