"""Batches of rows of similar length under a token budget, and their padding to rectangles.

Works in numpy alone, so that scoring with ONNX Runtime needs no torch.
"""

import numpy as np

from model.features.encoded import Encoded
from model.features.kinds import column_kinds, kind_classes, token_kinds
from model.features.ragged import positions

Batch = dict[str, np.ndarray]
MAX_WINDOWS_PER_BATCH = 2048
"""The matrix that says which row has which window grows with their square where rows are short."""


def batches(
    encoded: Encoded,
    batch_tokens: int,
    seed: int | None = None,
    chosen: np.ndarray | None = None,
    most_rows: int | None = None,
) -> list[np.ndarray]:
    """Return the row numbers of each batch, or positions in `chosen`, if only those rows are wanted; each is in one.

    Longest rows first (of the longest windows, and of those the ones with most), so that memory runs out at the start
    or never; with a seed, rows that are alike in that and the batches themselves come in an order fixed by it, and
    every seed makes as many batches. A row longer than the budget gets a batch of its own. No batch has more than
    `most_rows`.
    Shapes: returns int64 arrays.

    >>> numbers = Encoded(n_rows=5, arrays={"numbers": np.zeros((5, 3), np.float32)})
    >>> batches(numbers, batch_tokens=8)  # three numbers and [CLS]: two rows
    [array([0, 1]), array([2, 3]), array([4])]
    """
    lengths = encoded.lengths if chosen is None else encoded.lengths[chosen]
    rows = np.arange(len(lengths))
    random = np.random.default_rng(seed) if seed is not None else None
    if random is not None:
        random.shuffle(rows)
    if encoded.window_offsets is not None:
        n_windows = encoded.n_windows if chosen is None else encoded.n_windows[chosen]
        rows = rows[np.lexsort((-n_windows[rows], -lengths[rows]))]
        before, most_windows = np.r_[0, np.cumsum(n_windows[rows])], MAX_WINDOWS_PER_BATCH
    else:
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        before, most_windows = np.arange(len(rows) + 1), len(rows)
    cut, start = [], 0
    while start < len(rows):
        most = min(most_windows, batch_tokens // int(lengths[rows[start]]))
        end = max(start + 1, int(np.searchsorted(before, before[start] + most, "right")) - 1)
        end = min(end, start + (most_rows or len(rows)))
        cut.append(rows[start:end])
        start = end
    if random is not None:
        random.shuffle(cut)
    return cut


def collate(encoded: Encoded, rows: np.ndarray, pad_id: int) -> Batch:
    """Return the given rows as the network's inputs; a kind that has no columns has no entry.

    Beside the inputs of the kinds, `windows` float32 [b, w] is 1 where one of the b rows has one of the w windows; it
    has no entry where each row is one window. Where the encoder's output is known, `pooled` float32 [b, d] replaces the
    sequences that the encoder reads; the columns stay.
    """
    beside: Batch = {}
    for kind in kind_classes():
        beside |= kind.row_batch(encoded.arrays, rows)
    if encoded.pooled.size:
        for kind in column_kinds():
            beside |= kind.token_batch(encoded.arrays, rows, rows, pad_id)
        return {"pooled": encoded.pooled[rows], **beside}
    batch: Batch = {}
    windows = owners = rows
    if encoded.window_offsets is not None:
        n_windows = encoded.window_offsets[rows + 1] - encoded.window_offsets[rows]
        windows, owners = positions(encoded.window_offsets[rows], n_windows), np.repeat(rows, n_windows)
        batch["windows"] = np.repeat(np.eye(len(rows), dtype=np.float32), n_windows, axis=1)
    for kind in token_kinds():
        batch |= kind.token_batch(encoded.arrays, owners, windows, pad_id)
    return batch | beside
