"""Tokens of events: the sum of what stands for its place, its times, its numbers and its words.

Shape legend: b rows, s events of a row, k numbers of an event as of `kinds.events`, m of them numbers, c categories,
d width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.features.histories import NOTHING, PER_BIN, EventSizes
from model.features.kinds.modules.category import CategoryTokens, forget
from model.features.kinds.modules.columns import ColumnTokens, Reconstruction, normalised_cross_entropy

GAP = 2
"""Where an event of the first column has its days from the event before."""


class EventTokens(ColumnTokens):
    """A token for each event: the sum of a vector for its place, a linear map of the piecewise-linear encoding of each
    number, and a vector for each category.

    Its weights are initialised by `model.network.network.initialise`.
    """

    steps: Tensor

    def __init__(self, sizes: Sequence[EventSizes], d_model: int) -> None:
        n_bins = bins_of(sizes)
        super().__init__(len(n_bins), max(n_bins), d_model)
        self.places = nn.Embedding(sum(each.max_events for each in sizes), d_model)
        n_slots = slots_of(sizes)
        self.categories = CategoryTokens(n_slots, d_model) if n_slots else None
        self.register_buffer("steps", torch.arange(max(n_bins)).float(), persistent=False)

    def forward(self, events: Tensor) -> Tensor:
        """Shapes: int64 [b, s, k] -> [b, s, d]."""
        n_numbers = len(self.weight)
        place, numbers, words = events[..., 0], events[..., 1 : 1 + n_numbers], events[..., 1 + n_numbers :]
        known = (numbers >= 0).float()
        encoded = (numbers.float()[..., None] / PER_BIN - self.steps).clamp(0, 1)  # 0 for what is missing
        tokens = encoded.flatten(2) @ self.weight.flatten(0, 1)
        tokens = tokens + known @ self.bias + (1 - known) @ self.missing + self.places(place.clamp(min=0))
        return tokens if self.categories is None else tokens + self.categories(words.clamp(min=0)).sum(2)


class EventReconstruction(Reconstruction):
    """Guesses the bin of each number and the slot of each category of an event."""

    def __init__(self, sizes: Sequence[EventSizes], d_model: int) -> None:
        super().__init__()
        self.numbers = nn.ModuleList(nn.Linear(d_model, n_bins) for n_bins in bins_of(sizes))
        self.words = nn.ModuleList(nn.Linear(d_model, n_slots) for n_slots in slots_of(sizes))

    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return one loss for each field; an event counts 1 where all of its fields are guessed blindly."""
        found, truth = tokens[hidden], values[hidden][:, 1:]
        losses = []
        for at, head in enumerate([*self.numbers, *self.words]):
            known, is_number = truth[:, at] >= 0, at < len(self.numbers)
            logits, slots = head(found[known]), truth[known, at]
            choices = (slots // PER_BIN).clamp(max=logits.shape[1] - 1) if is_number else slots
            losses.append(normalised_cross_entropy(logits, choices) / truth.shape[1])
        return losses


def bins_of(sizes: Sequence[EventSizes]) -> list[int]:
    """Return the bins of the numbers of all columns."""
    return [n_bins for each in sizes for n_bins in each.n_bins]


def slots_of(sizes: Sequence[EventSizes]) -> tuple[int, ...]:
    """Return the slots of the categories of all columns."""
    return tuple(n_slots for each in sizes for n_slots in each.n_slots)


def forget_words(events: Tensor, sizes: Sequence[EventSizes], unknown: int) -> Tensor:
    """Return the events with a few categories made unknown. Shapes: int64 [b, s, k] -> the same."""
    first = 1 + len(bins_of(sizes))
    words = events[..., first:]
    if not words.shape[-1]:
        return events
    return torch.cat([events[..., :first], torch.where(words < 0, words, forget(words, unknown))], dim=-1)


def hide_events(events: Tensor, sizes: Sequence[EventSizes], fraction: float) -> tuple[Tensor, Tensor]:
    """Return which events are hidden, and what is seen of all. Shapes: int64 [b, s, k] -> bool [b, s], the same.

    What follows a hidden event keeps its own time and loses its distance, which would tell the hidden one's.
    """
    hidden = (torch.rand(events.shape[:2]) < fraction).to(events.device) & (events[..., 0] >= 0)
    seen = torch.where(hidden[..., None], NOTHING, events)
    seen[..., 0] = events[..., 0]
    follows = F.pad(hidden[:, :-1], (1, 0))
    at = GAP
    for each in sizes:
        seen[..., at] = torch.where(follows, NOTHING, seen[..., at])
        at += len(each.n_bins)
    return hidden, seen
