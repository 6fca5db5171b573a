"""The companion: boosted trees and a linear model of the columns, beside the encoder, and the blend of all.

On few rows, and on columns of plain numbers, trees and lines are hard to beat; the encoder is where there is text, many
categories or many rows. Which of them scores is chosen on validation rows, as weights of which any may be 0. All read
the arrays of a batch, so that one exported network holds them all; context columns stay with `model.network.context`.
Trees and lines are fitted by `model.training.companion`; here they are arrays.

Shape legend: b rows, c category columns, s slots of all of them, e numbers that stand for a category, k inputs,
m number columns, p pieces of each, t trees, o outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import CATEGORY, EVENTS, NUMBER, TIME
from model.features.kinds.modules.time import TREND, TimeEncoding
from model.network.blend import PARTS, TREE_LOGITS, Shape
from model.network.wide import weighted_sum


class Columns(nn.Module):
    """The columns of a batch as numbers, for the line and for the trees."""

    starts: Tensor
    times: Tensor
    centre: Tensor
    scale: Tensor
    encodings: Tensor
    lower: Tensor
    steepness: Tensor

    def __init__(self, sizes: Sizes, n_outputs: int, n_encoded: int, n_pieces: int = 0, *, reads_text: bool) -> None:
        super().__init__()
        slots, readings = sizes.of(CATEGORY), sizes.of(TIME)
        self.n_numbers, self.n_categories, self.n_slots = len(sizes.of(NUMBER)), len(slots), sum(slots)
        self.n_summaries = sum(each.n_summaries for each in sizes.of(EVENTS))
        self.n_logits = n_outputs if reads_text else 0
        self.encode_times = TimeEncoding(readings) if readings else None
        n_parts = 0 if not readings else 3 if readings[0].first is None else 4
        read = [
            column * n_parts + part
            for column, each in enumerate(readings)
            for part in (*each.cycles, *([TREND] if each.has_trend else []))
        ]
        self.register_buffer("starts", torch.tensor([0, *slots]).cumsum(0)[:-1], persistent=False)
        self.register_buffer("times", torch.tensor(read, dtype=torch.int64), persistent=False)
        self.n_plain = 2 * self.n_numbers + self.n_summaries + self.n_logits
        if self.encode_times is not None:
            self.n_plain += len(readings) * self.encode_times.n_numbers
        self.register_buffer("centre", torch.zeros(self.n_plain))
        self.register_buffer("scale", torch.ones(self.n_plain))
        self.register_buffer("encodings", torch.zeros(self.n_slots, n_encoded))
        self.n_pieces = self.n_numbers * n_pieces
        if n_pieces:
            self.register_buffer("lower", torch.zeros(self.n_numbers, n_pieces))
            self.register_buffer("steepness", torch.zeros(self.n_numbers, n_pieces))

    @property
    def n_tree_inputs(self) -> int:
        """Return the numbers that trees read of a row."""
        return (
            self.n_categories * self.encodings.shape[1]
            + self.n_numbers
            + len(self.times)
            + self.n_summaries
            + self.n_logits
        )

    def slots(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the slots of a row's categories among those of all columns. Shapes: int64 [b, c]."""
        return _by_row(batch, "categories") + self.starts

    def plain(self, batch: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        """Return what the line reads beside categories, before it is standardised. Shapes: [b, k]."""
        parts = []
        if self.n_numbers:
            numbers = _by_row(batch, "numbers")
            parts += [numbers, numbers.isnan().float()]
        if self.encode_times is not None:
            times = _by_row(batch, "times")
            missing = times[..., :1].isnan()
            encoded = self.encode_times(torch.where(times.isnan(), 0.0, times))
            parts.append(torch.where(missing, torch.nan, encoded).flatten(1))
        if self.n_summaries:
            parts.append(batch["event_summaries"])
        if logits is not None:
            parts.append(logits)
        return torch.cat(parts, dim=1)

    def standardised(self, plain: Tensor) -> Tensor:
        """Return the same with mean 0 and deviation 1 over the fitted rows, 0 where missing. Shapes: [b, k]."""
        return torch.where(plain.isnan(), 0.0, (plain - self.centre) / self.scale)

    def pieces(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return which share of each piece of its column lies below a number, 0 where missing. Shapes: [b, m * p].

        Source: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning" (piecewise linear
        encoding); here flat beyond the outermost pieces, where the number itself is read too.
        """
        numbers = _by_row(batch, "numbers")[..., None]
        shares = ((numbers - self.lower) * self.steepness).clamp(0, 1)
        return torch.where(numbers.isnan(), 0.0, shares).flatten(1)

    def for_trees(self, batch: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        """Return what the trees read, NaN for missing. Shapes: float32 [b, k]."""
        parts = [self.encodings[self.slots(batch)].flatten(1)] if self.n_categories else []
        return torch.cat([*parts, *self.beside_categories(batch, logits)], dim=1)

    def beside_categories(self, batch: Mapping[str, Tensor], logits: Tensor | None) -> Iterator[Tensor]:
        """Yield what the trees read beside categories. Shapes: [b, ...] each."""
        if self.n_numbers:
            yield _by_row(batch, "numbers")
        if len(self.times):
            yield _by_row(batch, "times").flatten(1)[:, self.times]
        if self.n_summaries:
            yield batch["event_summaries"]
        if logits is not None:
            yield logits


def _by_row(batch: Mapping[str, Tensor], name: str) -> Tensor:
    """Return an input by row: a row that is read in several windows has it in each."""
    if "windows" not in batch:
        return batch[name]
    return batch[name][batch["windows"].argmax(1)]


class Line(nn.Module):
    """A linear model: a weight for each slot of a category, each number, each piece of one, each group of letters."""

    by_slot: Tensor
    by_letters: Tensor
    by_piece: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, n_slots: int, n_plain: int, n_outputs: int, n_letter_groups: int = 0, n_pieces: int = 0) -> None:
        super().__init__()
        self.n_letter_groups = n_letter_groups
        # Without letters or pieces nothing is saved: older models have neither.
        self.register_buffer("by_letters", torch.zeros(n_letter_groups, n_outputs), persistent=n_letter_groups > 0)
        self.register_buffer("by_piece", torch.zeros(n_pieces, n_outputs), persistent=n_pieces > 0)
        self.register_buffer("by_slot", torch.zeros(n_slots, n_outputs))
        self.register_buffer("weight", torch.zeros(n_plain, n_outputs))
        self.register_buffer("bias", torch.zeros(n_outputs))

    def forward(
        self,
        slots: Tensor | None,
        numbers: Tensor | None,
        pieces: Tensor | None,
        letters: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Shapes: int64 [b, c], [b, k], [b, m * p]; letters as of `Wide.letters` -> [b, o]."""
        logits = self.bias
        if letters is not None:
            logits = logits + weighted_sum(self.by_letters, *letters)
        if slots is not None:
            logits = logits + self.by_slot[slots].sum(1)
        # Not as a product of matrices: engines of lower precision would round it, and it costs next to nothing.
        if numbers is not None:
            logits = logits + (numbers[..., None] * self.weight).sum(1)
        if pieces is not None:
            logits = logits + (pieces[..., None] * self.by_piece).sum(1)
        return logits


class Trees(nn.Module):
    """Boosted trees as arrays: a row goes from each root to a leaf, whose values are summed.

    Values are multiples of one power of two, so small that every sum of them is exact in single precision: the order in
    which an engine sums them changes no bit.
    """

    feature: Tensor
    threshold: Tensor
    missing_left: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    roots: Tensor
    output: Tensor
    base: Tensor

    def __init__(self, shape: Shape, n_outputs: int) -> None:
        super().__init__()
        self.depth, n = shape.depth, shape.n_nodes
        self.register_buffer("feature", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(n))
        self.register_buffer("missing_left", torch.zeros(n, dtype=torch.bool))
        self.register_buffer("left", torch.arange(n))
        self.register_buffer("right", torch.arange(n))
        self.register_buffer("value", torch.zeros(n))
        self.register_buffer("roots", torch.zeros(shape.n_trees, dtype=torch.int64))
        self.register_buffer("output", torch.zeros(shape.n_trees, dtype=torch.int64))
        self.register_buffer("base", torch.zeros(n_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the sums of the leaves; what is said without trees is not in them. Shapes: [b, k] -> [b, o]."""
        at = self.roots.expand(len(inputs), -1)
        for _ in range(self.depth):  # a leaf is its own child
            numbers = inputs.gather(1, self.feature[at])
            goes_left = torch.where(numbers.isnan(), self.missing_left[at], numbers <= self.threshold[at])
            at = torch.where(goes_left, self.left[at], self.right[at])
        sums = inputs.new_zeros(len(inputs), len(self.base))
        return sums.index_add(1, self.output, self.value[at])


class Companion(nn.Module):
    """Line and trees, and the weight of each part. All are buffers: no gradient, decay or average moves them."""

    mix: Tensor

    def __init__(self, sizes: Sizes, n_outputs: int, shape: Shape, *, reads_text: bool) -> None:
        super().__init__()
        self.shape = shape
        self.columns = Columns(sizes, n_outputs, shape.n_encoded, shape.n_pieces, reads_text=reads_text)
        n_slots, n_plain, n_pieces = self.columns.n_slots, self.columns.n_plain, self.columns.n_pieces
        self.line = Line(n_slots, n_plain, n_outputs, shape.n_letter_groups, n_pieces)
        self.trees = Trees(shape, n_outputs) if shape.n_trees else None
        self.register_buffer("mix", torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def set_mix(self, weights: Sequence[float]) -> None:
        """Give each of PARTS its weight; one without weight is not computed any more."""
        self.mix.copy_(torch.tensor(weights))
        used = tuple(part for part, weight in zip(PARTS, weights, strict=True) if weight)
        self.shape = replace(self.shape, parts=used)

    def line_logits(
        self, batch: Mapping[str, Tensor], logits: Tensor | None, letters: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return what the line says, which reads what the subwords say, or `letters`. Shapes: [b, o] -> [b, o]."""
        columns = self.columns
        slots = columns.slots(batch) if columns.n_categories else None
        numbers = columns.standardised(columns.plain(batch, logits)) if columns.n_plain else None
        return self.line(slots, numbers, columns.pieces(batch) if columns.n_pieces else None, letters)

    def tree_logits(self, batch: Mapping[str, Tensor], logits: Tensor | None) -> Tensor:
        """Return what the trees say, which read what the subwords say. Shapes: [b, o] -> [b, o]."""
        assert self.trees is not None
        sums = batch[TREE_LOGITS] if TREE_LOGITS in batch else self.trees(self.columns.for_trees(batch, logits))
        return sums + self.trees.base
