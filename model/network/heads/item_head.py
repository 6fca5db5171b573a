"""From the pooled row, and the items that it had before, to a logit for each item.

An item is next because of what the row says, by the product of the row's vector with the item's, or because the row had
it before: a share of the probability goes to its history, each place of which has a weight that the row decides.
Vectors of items are those of the history's newest column, so that what is learnt of an item in a history is known of it
as an answer; without a history they are its own.

Source: See et al. 2017, "Get To The Point" (pointer-generator), for items Ren et al. 2019, "RepeatNet"; Press and Wolf
2017, "Using the Output Embedding to Improve Language Models" (tied vectors).

Shape legend: b rows, d width, c category columns, h places of the history, i items.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.features.kinds.category import FIRST_KNOWN, UNKNOWN
from model.network.dropout import Dropout
from model.target import Target

LEAST_SHARE = 1e-9
"""Of an item that neither part thinks of, so that a loss stays finite."""


class ItemHead(nn.Module):
    """A mixture of a softmax over all items and of the items of the history.

    Which slots of the category columns are which items lies in buffers, saved with the weights; `connect` fills them.
    """

    history: Tensor
    excluded: Tensor
    starts: Tensor
    item_of_slot: Tensor
    slot_of_item: Tensor

    def __init__(self, n_slots: Sequence[int], d_model: int, target: Target, dropout: float) -> None:
        super().__init__()
        n_items, n_places = len(target.classes), len(target.history)
        self.dense, self.dropout = nn.Linear(d_model, d_model), Dropout(dropout, of="rows")
        self.query = nn.Linear(d_model, d_model)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.vectors = None if n_places else nn.Embedding(n_items, d_model)
        self.copying = nn.Linear(d_model, n_places + 1) if n_places else None
        starts = torch.tensor([0, *n_slots]).cumsum(0)
        self.register_buffer("starts", starts[:-1], persistent=False)
        self.register_buffer("history", torch.zeros(n_places, dtype=torch.int64))
        self.register_buffer("excluded", torch.zeros(len(target.exclude), dtype=torch.int64))
        self.register_buffer("item_of_slot", torch.full((int(starts[-1]),), n_items))
        self.register_buffer("slot_of_item", torch.zeros(n_items, dtype=torch.int64))

    def connect(self, vocabularies: Mapping[str, Sequence[str]], target: Target) -> None:
        """Note which slots are which items; `vocabularies` are the known values of each category column, in order."""
        names, number = list(vocabularies), {name: position for position, name in enumerate(target.classes)}
        starts = dict(zip(names, self.starts.tolist(), strict=True))
        for column in {*target.history, *target.exclude}:
            first = starts[column] + FIRST_KNOWN
            items = [number.get(word, len(number)) for word in vocabularies[column]]
            self.item_of_slot[first : first + len(items)] = torch.tensor(items, dtype=torch.int64)
        self.history.copy_(torch.tensor([names.index(column) for column in target.history], dtype=torch.int64))
        self.excluded.copy_(torch.tensor([names.index(column) for column in target.exclude], dtype=torch.int64))
        if target.history:
            newest = target.history[0]
            slots = {word: slot for slot, word in enumerate(vocabularies[newest], FIRST_KNOWN)}
            of_items = [starts[newest] + slots.get(name, UNKNOWN) for name in target.classes]
            self.slot_of_item.copy_(torch.tensor(of_items))

    def forward(self, pooled: Tensor, categories: Tensor | None, table: Tensor) -> Tensor:
        """Return the logarithm of each item's share.

        Shapes: [b, d], int64 [b, c], the vectors of all slots -> float32 [b, i].
        """
        row = self.dropout(torch.tanh(self.dense(self.dropout(pooled))))
        vectors = table[self.slot_of_item] if self.vectors is None else self.vectors.weight
        logits = (self.query(row) @ vectors.T).float() + self.bias
        if self.copying is None or categories is None:
            return logits
        weights = self.copying(row).float()
        place, share = nn.functional.softplus(weights[:, :-1]), weights[:, -1:].sigmoid()
        copied = self._sum_by_item(categories, self.history, place)
        total = copied.sum(1, keepdim=True)
        share = share * (total > 0)
        mixed = (1 - share) * logits.softmax(-1) + share * copied / total.clamp(min=LEAST_SHARE)
        return (mixed + LEAST_SHARE).log()

    def allowed(self, logits: Tensor, categories: Tensor | None) -> Tensor:
        """Return the logits, minus infinity for each item in a column that excludes it. Shapes: [b, i] -> [b, i]."""
        if not self.excluded.shape[0] or categories is None:
            return logits
        named = self._sum_by_item(
            categories, self.excluded, torch.ones_like(categories[:, : len(self.excluded)]).float()
        )
        return logits.masked_fill(named > 0, -torch.inf)

    def _sum_by_item(self, categories: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
        """Return the sum of the weights of the columns that name each item. Shapes: [b, c], [h], [b, h] -> [b, i]."""
        items = self.item_of_slot[categories[:, columns] + self.starts[columns]]
        # The last sum is that of what is no item: a missing cell, or a word that no label is.
        sums = weights.new_zeros(categories.shape[0], self.slot_of_item.shape[0] + 1)
        return sums.scatter_add(1, items, weights)[:, :-1]
