"""The patches that images are read by where blocks are guessed: each block counts as the nearest of at most 255.

So a hidden block is one choice of few, and its surprise is told in bits as that of a bin of numbers.

Shape legend: n blocks, k patches, p numbers of a block's pixels.
"""

from functools import cache

import numpy as np
from PIL import Image

from model.features.pixels import BLOCK, Picture, read_image, stored

MAX_PATCHES = 255
MAX_FITTED_BLOCKS = 60_000
ACROSS = 16
"""Patches beside one another in the picture that a model keeps of them."""
ROWS_AT_ONCE = 16_384


def fit_patches(blocks: np.ndarray) -> np.ndarray:
    """Return the centres of groups of blocks: fewer than MAX_PATCHES where fewer blocks differ, at least one.

    Shapes: uint8 [n, p] -> uint8 [k, p], no two the same.
    Source: van den Oord et al., "Neural Discrete Representation Learning" (2017), with groups that k-means finds.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    random = np.random.default_rng(0)
    if len(blocks) > MAX_FITTED_BLOCKS:
        blocks = blocks[random.choice(len(blocks), MAX_FITTED_BLOCKS, replace=False)]
    different = np.unique(blocks, axis=0)
    if len(different) <= MAX_PATCHES:
        return different if len(different) else np.zeros((1, blocks.shape[1]), np.uint8)
    with threadpool_limits(1):  # the number of cores must change no bit
        groups = KMeans(MAX_PATCHES, n_init=1, max_iter=30, random_state=0).fit(blocks.astype(np.float32))
    return np.unique(groups.cluster_centers_.round().clip(0, 255).astype(np.uint8), axis=0)


def as_picture(patches: np.ndarray, channels: int) -> str:
    """Return patches as one stored image, ACROSS of them beside one another. Shapes: uint8 [k, p]."""
    n_rows = -(-len(patches) // ACROSS)
    filled = np.zeros((n_rows * ACROSS, patches.shape[1]), np.uint8)
    filled[: len(patches)] = patches
    return image_of(filled, n_rows, ACROSS, channels)


def image_of(blocks: np.ndarray, n_rows: int, n_across: int, channels: int) -> str:
    """Return blocks, row by row, as a stored image. Shapes: uint8 [n_rows * n_across, p]."""
    pixels = blocks.reshape(n_rows, n_across, BLOCK, BLOCK, channels).swapaxes(1, 2)
    pixels = pixels.reshape(n_rows * BLOCK, n_across * BLOCK, channels)
    return stored(Image.fromarray(pixels[..., 0] if channels == 1 else pixels))


@cache
def patches_of(picture: Picture) -> np.ndarray:
    """Return the patches that a column's blocks are read by. Shapes: uint8 [k, 16 * channels]."""
    pixels = np.asarray(read_image(picture.patches)).reshape(-1, BLOCK, ACROSS, BLOCK, picture.channels)
    return pixels.swapaxes(1, 2).reshape(-1, BLOCK**2 * picture.channels)[: picture.n_patches]


def nearest(blocks: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Return the number of each block's nearest patch, of several the first. Shapes: uint8 [n, p], [k, p] -> int64 [n].

    Single precision holds all sums exactly: every machine finds the same.

    >>> nearest(np.array([[0, 9], [200, 0]], np.uint8), np.array([[0, 0], [255, 0]], np.uint8)).tolist()
    [0, 1]
    """
    numbers, centres = np.empty(len(blocks), np.int64), patches.astype(np.float32)
    squares = (centres**2).sum(1)
    for start in range(0, len(blocks), ROWS_AT_ONCE):
        part = blocks[start : start + ROWS_AT_ONCE].astype(np.float32)
        numbers[start : start + len(part)] = (squares - 2 * part @ centres.T).argmin(1)
    return numbers
