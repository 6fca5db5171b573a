"""Images: pictures of few pixels, cut into blocks of 4 x 4 that are a token each.

Two strided convolutions make the tokens: each sees its block's neighbours, which a linear map of one block does not.
"""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Resampling

from model.features.fitting import FittingRows, Table
from model.features.kinds import IMAGE
from model.features.kinds.base import CellForm, Json, Kind
from model.features.pixels import BLOCK, NO_IMAGE, Picture, is_not_stored, read_image, stored_image

if TYPE_CHECKING:
    from torch import Tensor, nn

    from model.features.encoded import Sizes
    from model.features.kinds.modules.columns import Reconstruction

PLAIN_SIDE = 16
"""Pixels of a side as the baseline reads an image."""


class Image(Kind[Picture]):
    """Side and channels per column.

    Encoded as uint8 [n, blocks of all columns, 16 * channels + 1]: a block's pixels, row by row, and 1; all 0 for the
    blocks of a missing image, and for those that pretraining hides.
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
        """Read side and channels off the images. Shapes: object [n]."""
        images = [read_image(cell) for cell in column if cell is not None]
        sides = {image.width for image in images} or {BLOCK}
        return Picture(side=max(1, max(sides) // BLOCK), channels=3 if any(i.mode == "RGB" for i in images) else 1)

    def encode(self, table: Table) -> dict[str, np.ndarray]:
        """Return the blocks of all columns one after the other."""
        if not self.columns:
            return {}
        channels = max(fitted.channels for fitted in self.columns.values())
        parts = [blocks_of(table[name], fitted.side, channels) for name, fitted in self.columns.items()]
        return {self.input: np.concatenate(parts, axis=1)}

    @classmethod
    def encode_column(cls, column: np.ndarray, fitted: Picture) -> np.ndarray:
        """Return the blocks of one column. Shapes: object [n] -> uint8 [n, blocks, 16 * channels + 1]."""
        return blocks_of(column, fitted.side, fitted.channels)

    def to_json(self) -> Json:
        """Return side and channels by column."""
        return {self.key: {name: asdict(each) for name, each in self.columns.items()}} if self.columns else {}

    @classmethod
    def column_from_json(cls, content: Any) -> Picture:
        """Read back side and channels of one column."""
        return Picture(**content)

    @classmethod
    def token_module(cls, sizes: tuple[Picture, ...], d_model: int) -> "nn.Module | None":
        """Return two convolutions for all columns, and a vector for every place."""
        from model.features.kinds.modules.image import ImageTokens

        return ImageTokens(sizes, d_model) if sizes else None

    @classmethod
    def real(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return True for every block: a missing image is a token of its own at each place."""
        import torch

        return torch.ones_like(values[..., 0], dtype=torch.bool)

    @classmethod
    def disturb(cls, values: "Tensor", sizes: "Sizes") -> "Tensor":
        """Return the images a little shifted, turned and scaled, as pictures of the same thing differ."""
        from model.features.kinds.modules.image import move

        return move(values, sizes.of(cls.name))

    @classmethod
    def hide(cls, values: "Tensor", sizes: "Sizes", fraction: float) -> "tuple[Tensor, Tensor]":
        """Return which blocks are hidden, and the images without them."""
        import torch

        hidden = (values[..., -1] > 0) & (torch.rand(values.shape[:2]) < fraction).to(values.device)
        return hidden, values * ~hidden[..., None]

    @classmethod
    def reconstruction(cls, sizes: "Sizes", d_model: int) -> "Reconstruction | None":
        """Return what guesses the pixels of hidden blocks."""
        from model.features.kinds.modules.image import BlockReconstruction

        return BlockReconstruction(sizes.of(cls.name), d_model) if sizes.of(cls.name) else None

    @classmethod
    def plain_numbers(cls, column: np.ndarray) -> np.ndarray:
        """Return the grey of few pixels. Shapes: object [n] -> float32 [n, 256]."""
        numbers = np.full((len(column), PLAIN_SIDE**2), np.nan, np.float32)
        for row, cell in enumerate(column):
            if cell is not None:
                grey = read_image(cell).convert("L").resize((PLAIN_SIDE, PLAIN_SIDE), Resampling.BOX)
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
