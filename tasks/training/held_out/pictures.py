"""Show what a model without labels makes of images: held-out ones, the same with half hidden, and that half filled.

Beside them stand images of rows that were made up, if any were. How far a guess of what is hidden is off is measured
beside two that learn nothing: the mean of the training images there, and the training image that is nearest by what is
seen.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic.dataclasses import dataclass

from model.features.fitting import Table
from model.features.kinds import KINDS, kind_class
from model.features.kinds.image import blocks_of
from model.features.kinds.patches import image_of
from model.features.pixels import Picture
from model.heads import head_of
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.partitions import read_table
from tasks.runtime.paths import MADE, Paths
from tasks.runtime.records import RECORD, Record
from tasks.training.held_out.made_rows import held_out_rows

if TYPE_CHECKING:
    from model.features.fitted import Features
    from model.scoring.synthesis import BlockFiller

MAX_MEASURED, MAX_KNOWN = 256, 5_000
"""Held-out images that are measured, and training images among which the nearest is looked for."""
MAX_SHOWN, MAX_LETTERS = 8, 100_000
"""Images beside one another, and letters of all that are shown together."""
HIDDEN_SHARE, GREY = 0.5, 128


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Shown:
    """A held-out image, by its row's key: as it came, with half hidden, and that half filled; each as it is stored."""

    key: str
    original: str
    hidden: str
    filled: str


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Pictures(Record):
    """What a model makes of a column of images."""

    column: str
    rows: int
    """Held-out images that were measured."""
    error: float
    """Mean squared error of the guessed pixels where half of an image is hidden, of greys from 0 to 1."""
    error_of_mean: float
    """The same of the mean of the training images."""
    error_of_nearest: float
    """The same of the training image that is nearest by what is seen."""
    shown: tuple[Shown, ...]
    made: tuple[str, ...]
    """Images of the first rows that were made up."""

    @property
    def lines(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return what stands beside one another: what it is, and each image with its row's key."""
        return [
            ("as they came", [(each.original, each.key) for each in self.shown]),
            ("half hidden", [(each.hidden, each.key) for each in self.shown]),
            ("filled", [(each.filled, each.key) for each in self.shown]),
        ]


def show_pictures(product: Product, paths: Paths) -> list[Pictures]:
    """Return what the trained model below `paths` makes of each column of images; none with labels or without images.

    After `make_rows`: what that has made up is shown.
    """
    has_images = any(kind_class(kind).is_sequence and KINDS[kind].is_guessed for kind in product.columns.values())
    if head_of(product.target.task).has_labels or not has_images:
        return []
    from model.scoring.scorer import TorchScorer
    from model.scoring.synthesis import RowMaker

    scorer, seed = TorchScorer(paths.trained), product.model.train.seed
    training = model_inputs.split_part(paths.splits, "train", product)
    known, test = training.sample(MAX_KNOWN).read_all(), held_out_rows(product, paths).sample(MAX_MEASURED)
    maker, table, keys = RowMaker(scorer.network, scorer.features, known, seed), test.read_all(), _keys(test, product)
    found = []
    for filler, name in zip(maker.fillers, maker.names[-len(maker.fillers) :], strict=True):
        present = np.array([cell is not None for cell in table[name]], bool)
        if present.any():
            rows = {each: cells[present] for each, cells in table.items()}
            half = _half_hidden(filler, scorer.features, rows, seed)
            errors = errors_of(half, filler.maker.picture, rows[name], known[name])
            made = _made(paths.made_rows / MADE, name) if product.predict.make_rows else ()
            found.append(_pictures(name, half, filler, keys[present], rows[name], errors, made))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfHidden:
    """Images of which half is hidden. Shapes: n images, t blocks, p pixels of a block."""

    hidden: np.ndarray
    """bool [n, t]."""
    expected: np.ndarray
    """float64 [n, t, p]: what the model expects of each block, its choices weighed by their probability."""
    filled: np.ndarray
    """object [n]: images with what was drawn, as they are stored."""


def _half_hidden(filler: "BlockFiller", features: "Features", rows: Table, seed: int) -> HalfHidden:
    import torch

    encoded, random = features.encode(rows), np.random.default_rng(seed)
    n_rows, place = len(encoded), filler.place
    own = random.random((n_rows, place.n_tokens)).argsort(1) < round(HIDDEN_SHARE * place.n_tokens)
    hidden = torch.zeros(n_rows, filler.filling.n_tokens, dtype=torch.bool, device=filler.network.device)
    hidden[:, place.tokens] = torch.from_numpy(own).to(hidden.device)
    with torch.inference_mode():
        expected = filler.expected(encoded, hidden)
        filled = filler.fill(encoded, hidden, random)
    return HalfHidden(hidden=own, expected=expected, filled=filled)


def errors_of(half: HalfHidden, picture: Picture, cells: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Return the mean squared errors of what is hidden, by the names that `Pictures` has for them."""
    known = known[[cell is not None for cell in known]]
    truth, others = (blocks_of(each, picture.side, picture.channels)[..., :-1] / 255 for each in (cells, known))
    seen = np.repeat(~half.hidden[..., None], truth.shape[-1], axis=2).reshape(len(truth), -1).astype(float)
    flat = others.reshape(len(others), -1)
    distances = seen @ (flat**2).T - 2 * (seen * truth.reshape(len(truth), -1)) @ flat.T
    guesses = {
        "error": half.expected / 255,
        "error_of_mean": np.broadcast_to(others.mean(axis=0), truth.shape),
        "error_of_nearest": others[distances.argmin(axis=1)],
    }
    return {name: float(((each - truth)[half.hidden] ** 2).mean()) for name, each in guesses.items()}


def _pictures(
    name: str,
    half: HalfHidden,
    filler: "BlockFiller",
    keys: np.ndarray,
    cells: np.ndarray,
    errors: dict[str, float],
    made: tuple[str, ...],
) -> Pictures:
    letters = max(1, 4 * max(map(len, cells[:MAX_SHOWN])))
    n_shown = min(len(cells), max(1, min(MAX_SHOWN, MAX_LETTERS // letters)))
    picture = filler.maker.picture
    blocks = blocks_of(cells[:n_shown], picture.side, picture.channels)[..., :-1]
    blocks[half.hidden[:n_shown]] = GREY
    shown = tuple(
        Shown(
            key=keys[row],
            original=cells[row],
            hidden=image_of(blocks[row], picture.side, picture.side, picture.channels),
            filled=half.filled[row],
        )
        for row in range(n_shown)
    )
    rounded = {each: round(value, 6) for each, value in errors.items()}
    return Pictures(column=name, rows=len(cells), shown=shown, made=made[: 2 * n_shown], **rounded)


def _keys(rows: model_inputs.SplitPart, product: Product) -> np.ndarray:
    """Return the keys of rows as text. Shapes: object [n]."""
    known = rows.columns(list(product.key)).astype(str)
    return np.array([", ".join(row) for row in known.itertuples(index=False)], object)


def _made(file: Path, name: str) -> tuple[str, ...]:
    """Return the images of the first rows that were made up."""
    return tuple(read_table(file, [name])[name].dropna()[: 2 * MAX_SHOWN])
