"""Images: pictures of few pixels, cut into blocks of 4 x 4 that are a token each.

Two strided convolutions make the tokens: each sees its block's neighbours, which a linear map of one block does not.
"""

from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Resampling

from model.features.fitting import FittingRows, Table, chosen_rows
from model.features.kinds import IMAGE
from model.features.kinds.base import CellForm, Json, Kind
from model.features.kinds.making import PatchMaker
from model.features.kinds.patches import as_picture, fit_patches, nearest, patches_of
from model.features.pixels import BLOCK, NO_IMAGE, Picture, is_not_stored, read_image, stored_image
from model.heads import head_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction
    from model.settings import OptimisationSettings

PLAIN_SIDE, COUNTED_SIDE = 16, 4
"""Pixels of a side as the baseline reads an image, and as it counts what occurs together."""
MAX_FITTED_IMAGES = 20_000
"""Images whose blocks patches are fitted to."""


class Image(Kind[Picture]):
    """Side and channels per column; the patches that its blocks are read by, where these are guessed.

    Encoded as uint8 [n, blocks of all columns, 16 * channels + 1]: a block's pixels, row by row, and 1; all 0 for the
    blocks of a missing image, and for those that pretraining hides. Where blocks are guessed, as uint8 [n, blocks of
    all columns, 1]: 1 + the number of the nearest patch, and 0 likewise.
    """

    name = IMAGE
    key = "images"
    input = "images"
    module = "images"
    is_sequence = True
    is_converted = True
    names_files = True

    @classmethod
    def misfits(cls, cells: np.ndarray) -> np.ndarray:
        """Return which cells hold no image as it is stored."""
        return is_not_stored(cells)

    @classmethod
    def stored(cls, cell: object, form: CellForm, at: datetime) -> str:
        """Return a delivered image as it is stored."""
        return stored_image(cell, form.pixels)

    @classmethod
    def misfit_reason(cls, cell: object) -> str:
        """Return what was found when the image came."""
        return cell.removeprefix(NO_IMAGE) if isinstance(cell, str) and cell.startswith(NO_IMAGE) else ""

    @classmethod
    def fit_column(cls, column: np.ndarray, rows: FittingRows) -> Picture:
        """Read side and channels off the images, and fit patches where there are no labels. Shapes: object [n]."""
        images = [read_image(cell) for cell in column if cell is not None]
        sides = {image.width for image in images} or {BLOCK}
        picture = Picture(side=max(1, max(sides) // BLOCK), channels=3 if any(i.mode == "RGB" for i in images) else 1)
        if not rows.task or head_of(rows.task).has_labels:
            return picture
        known = column[[cell is not None for cell in column]]
        known = known[chosen_rows(len(known), MAX_FITTED_IMAGES)]
        blocks = blocks_of(known, picture.side, picture.channels)[..., :-1]
        patches = fit_patches(blocks.reshape(-1, blocks.shape[-1]))
        return replace(picture, n_patches=len(patches), patches=as_picture(patches, picture.channels))

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        """Return the blocks of all columns one after the other."""
        if not self.columns:
            return {}
        channels = max(fitted.channels for fitted in self.columns.values())
        parts = [
            numbers_of(table[name], fitted) if fitted.n_patches else blocks_of(table[name], fitted.side, channels)
            for name, fitted in self.columns.items()
        ]
        return {self.input: np.concatenate(parts, axis=1)}

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: Picture) -> np.ndarray:
        """Return the blocks of one column. Shapes: object [n] -> uint8 [n, blocks, 16 * channels + 1], or 1."""
        if fitted.n_patches:
            return numbers_of(column, fitted)
        return blocks_of(column, fitted.side, fitted.channels)

    def to_json(self) -> Json:
        """Return side and channels by column, and its patches as an image."""
        kept = {name: asdict(each) for name, each in self.columns.items()}
        return {self.key: {name: _without_empty(each) for name, each in kept.items()}} if self.columns else {}

    @classmethod
    def column_from_json(cls, content: Any) -> Picture:
        """Read back side and channels of one column."""
        return Picture(**content)

    @classmethod
    def token_module(cls, sizes: tuple[Picture, ...], d_model: int) -> "nn.Module | None":
        """Return two convolutions for all columns, or vectors of patches, and a vector for every place."""
        from model.features.kinds.modules.image import ImageTokens
        from model.features.kinds.modules.patches import PatchTokens

        if any(each.n_patches for each in sizes):
            return PatchTokens(sizes, d_model)
        return ImageTokens(sizes, d_model) if sizes else None

    @classmethod
    def real(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return True for every block: a missing image is a token of its own at each place."""
        import torch

        return torch.ones_like(values[..., 0], dtype=torch.bool)

    @classmethod
    def embed_hidden(cls, embeddings: "nn.Module", values: "Tensor", hidden: "Tensor") -> "Tensor":
        """Return the tokens, of hidden blocks without what these hold."""
        return getattr(embeddings, cls.module)(values, hidden)

    @classmethod
    def disturb(cls, values: "Tensor", sizes: "Sizes", settings: "OptimisationSettings") -> "Tensor":
        """Return the images a little shifted, turned and scaled, as pictures of the same thing differ, or mirrored too.

        Where blocks are guessed they stay: what is moved is as unusual as rows that are not so moved are not.
        """
        from model.features.kinds.modules.image import move

        pictures = sizes.of(cls.name)
        return values if any(each.n_patches for each in pictures) else move(values, pictures, settings.mirror_images)

    @classmethod
    def hide(cls, values: "Tensor", sizes: "Sizes", fraction: float) -> "tuple[Tensor, Tensor]":
        """Return which blocks are hidden, and the images without them."""
        import torch

        hidden = (values[..., -1] > 0) & (torch.rand(values.shape[:2]) < fraction).to(values.device)
        return hidden, values * ~hidden[..., None]

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses the pixels of hidden blocks, or the patches that these are."""
        from model.features.kinds.modules.image import BlockReconstruction
        from model.features.kinds.modules.patches import PatchReconstruction

        pictures = sizes.of(cls.name)
        if any(each.n_patches for each in pictures):
            return PatchReconstruction(pictures, d_model)
        return BlockReconstruction(pictures, d_model) if pictures else None

    @classmethod
    def cell_name(cls, cell: Any) -> str | None:
        """Return that there is an image."""
        return None if cell is None else "an image"

    @classmethod
    def choice_names(cls, fitted: Picture) -> np.ndarray:
        """Return where in the image other pixels were expected, block by block; last, that there was to be an image."""
        starts = range(1, fitted.side * BLOCK, BLOCK)
        places = [
            f"other pixels in rows {row} to {row + BLOCK - 1}, columns {column} to {column + BLOCK - 1}"
            for row in starts
            for column in starts
        ]
        return np.array([*places, "an image"], object)

    @classmethod
    def maker(cls, fitted: Picture, known: np.ndarray) -> PatchMaker:
        """Return what makes images of patches."""
        return PatchMaker(fitted, numbers_of(known, fitted))

    @classmethod
    def counted_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return the grey of a few parts of each image. Shapes: object [n] -> float32 [n, 16]."""
        return _greys(column, COUNTED_SIDE)

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return the grey of few pixels. Shapes: object [n] -> float32 [n, 256]."""
        return _greys(column, PLAIN_SIDE)


def _greys(column: np.ndarray, side: int) -> np.ndarray:
    """Return images as greys from 0 to 1. Shapes: object [n] -> float32 [n, side * side]."""
    numbers = np.full((len(column), side**2), np.nan, np.float32)
    for row, cell in enumerate(column):
        if cell is not None:
            grey = read_image(cell).convert("L").resize((side, side), Resampling.BOX)
            numbers[row] = np.asarray(grey, np.float32).ravel() / 255
    return numbers


def blocks_of(column: np.ndarray, side: int, channels: int) -> np.ndarray:
    """Return images as blocks. Shapes: object [n] -> uint8 [n, side * side, 16 * channels + 1]."""
    blocks = np.zeros((len(column), side**2, BLOCK**2 * channels + 1), np.uint8)
    size = (side * BLOCK, side * BLOCK)
    for row, cell in enumerate(column):
        if cell is None:
            continue
        image = read_image(cell).convert("RGB" if channels == 3 else "L")
        pixels = np.asarray(image if image.size == size else image.resize(size))
        cut = pixels.reshape(side, BLOCK, side, BLOCK, channels).swapaxes(1, 2)
        blocks[row, :, :-1] = cut.reshape(side**2, -1)
        blocks[row, :, -1] = 1
    return blocks


def numbers_of(column: np.ndarray, picture: Picture) -> np.ndarray:
    """Return 1 + the number of the nearest patch of each block, 0 in missing images.

    Shapes: object [n] -> uint8 [n, blocks, 1].
    """
    blocks = blocks_of(column, picture.side, picture.channels)
    numbers = blocks[..., -1:]
    present = numbers[..., 0] > 0
    numbers[present, 0] += nearest(blocks[present][:, :-1], patches_of(picture)).astype(np.uint8)
    return np.ascontiguousarray(numbers)


def _without_empty(content: Json) -> Json:
    return {name: value for name, value in content.items() if value}
