"""Tokens of images: two strided convolutions, each refined, over the whole picture; a token for each 4 x 4 pixels.

Source of convolutions in place of a linear map of each block: Xiao et al. (2021), "Early Convolutions Help Transformers
See Better".

Shape legend: b rows, n blocks of all columns, p numbers of a block (its pixels, and whether it is seen), c channels,
s pixels of a side, d width.
"""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.features.kinds.modules.columns import Reconstruction
from model.features.pixels import BLOCK, Picture

MAX_SHIFT = 0.08
"""Share of a side by which training moves an image at most."""
MAX_TURN = math.radians(12)
MAX_SCALE = 0.1
BLIND_ERROR = 1 / 3
"""Mean squared error of a guess of 0, where every grey is as frequent."""


class ImageTokens(nn.Module):
    """A token for each block of each image, or one for what is not seen, and a vector for its place.

    Its weights are initialised by `model.network.network.initialise`.
    """

    def __init__(self, pictures: Sequence[Picture], d_model: int) -> None:
        super().__init__()
        self.pictures = tuple(pictures)
        n_channels = max(each.channels for each in pictures)
        self.halved = nn.Sequential(nn.Conv2d(n_channels, d_model // 2, 3, stride=2, padding=1), Refined(d_model // 2))
        self.quartered = nn.Sequential(
            nn.GELU(), nn.Conv2d(d_model // 2, d_model, 3, stride=2, padding=1), Refined(d_model)
        )
        self.place = nn.Parameter(torch.empty(sum(each.n_blocks for each in pictures), d_model))
        self.unseen = nn.Parameter(torch.empty(d_model))

    def forward(self, blocks: Tensor) -> Tensor:
        """Shapes: uint8 [b, n, p] -> [b, n, d]."""
        tokens = []
        for picture, part in _by_column(blocks, self.pictures):
            seen = part[..., -1:] > 0
            # From -1 to 1; what is not seen is grey for its neighbours.
            pixels = (part[..., :-1].float() / 127.5 - 1) * seen
            convolved = self.quartered(self.halved(whole(pixels, picture.side)))
            tokens.append(torch.where(seen, convolved.flatten(2).transpose(1, 2), self.unseen))
        return torch.cat(tokens, dim=1) + self.place


class Refined(nn.Module):
    """Adds what two convolutions make of an image to it. Source: He et al. (2016), "Identity Mappings in Deep Residual
    Networks", whose normalisation two such steps do without.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(n_channels, n_channels, 3, padding=1) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """Shapes: float32 [b, c, s, s] -> the same."""
        return images + self.second(F.gelu(self.first(F.gelu(images))))


class BlockReconstruction(Reconstruction):
    """Guesses the pixels of a block."""

    def __init__(self, pictures: Sequence[Picture], d_model: int) -> None:
        super().__init__()
        self.pixels = nn.Linear(d_model, BLOCK**2 * max(each.channels for each in pictures))

    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return the squared error of the pixels, which lie from -1 to 1, over that of a guess of 0."""
        truth = values[..., :-1][hidden].float() / 127.5 - 1
        error = (self.pixels(tokens[hidden]).float() - truth).square().mean(-1).sum()
        return [error / BLIND_ERROR]


def move(blocks: Tensor, pictures: Sequence[Picture], may_mirror: bool) -> Tensor:
    """Return images a little shifted, turned and scaled, each otherwise, and half of them mirrored where they may be.

    Shapes: uint8 [b, n, p] -> the same.
    """
    moved = []
    for picture, part in _by_column(blocks, pictures):
        n_rows = len(part)
        shift = (torch.rand(n_rows, 2, 1) * 2 - 1) * 2 * MAX_SHIFT
        turn, scale = ((torch.rand(n_rows) * 2 - 1) * most for most in (MAX_TURN, MAX_SCALE))
        cosine, sine = turn.cos() / (1 + scale), turn.sin() / (1 + scale)
        matrix = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
        if may_mirror:
            matrix[torch.rand(n_rows) < 0.5, :, 0] *= -1  # what is read at x is what was at -x
        pixels = whole(part[..., :-1].float(), picture.side)
        grid = F.affine_grid(torch.cat([matrix, shift], 2).to(pixels.device), list(pixels.shape), align_corners=False)
        turned = F.grid_sample(pixels, grid, align_corners=False).round().clamp(0, 255)
        moved.append(torch.cat([cut(turned).to(torch.uint8), part[..., -1:]], 2))
    return torch.cat(moved, dim=1)


def whole(pixels: Tensor, side: int) -> Tensor:
    """Return images of blocks. Shapes: [b, side * side, 16 * c] -> [b, c, s, s]."""
    blocks = pixels.unflatten(1, (side, side)).unflatten(3, (BLOCK, BLOCK, -1))
    return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def cut(images: Tensor) -> Tensor:
    """Return the blocks of images. Shapes: [b, c, s, s] -> [b, side * side, 16 * c]."""
    blocks = images.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    return blocks.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def _by_column(blocks: Tensor, pictures: Sequence[Picture]) -> Iterator[tuple[Picture, Tensor]]:
    start = 0
    for picture in pictures:
        yield picture, blocks[:, start : start + picture.n_blocks]
        start += picture.n_blocks
