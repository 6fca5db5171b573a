"""From the pooled row, and the items that it had before, to a logit for each item.

An item is next because of what the row says, by the product of the row's vector with the item's, or because the row had
it before: a share of the probability goes to its history, each place of which has a weight that the row decides.
Vectors of items are those of the history's newest column, so that what is learnt of an item in a history is known of it
as an answer; without a history they are its own.

Source: See et al. 2017, "Get To The Point" (pointer-generator), for items Ren et al. 2019, "RepeatNet"; Press and Wolf
2017, "Using the Output Embedding to Improve Language Models" (tied vectors).

Shape legend: b rows, d width, c category columns, h places of the history, i items.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model.features.kinds.category import FIRST_KNOWN, UNKNOWN
from model.network.dropout import Dropout
from model.network.heads.drawn_items import DrawnItems
from model.target import Target

LEAST_SHARE = 1e-9
"""Of an item that neither part thinks of, so that a loss stays finite."""
PIECE_ITEMS = 8192
"""Items that have a logit at once where the loss of many is exact."""


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
        self.drawn: DrawnItems | None = None

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
        row = self._read(pooled)
        vectors = table[self.slot_of_item] if self.vectors is None else self.vectors.weight
        logits = (self.query(row) @ vectors.T).float() + self.bias
        if self.copying is None or categories is None:
            return logits
        place, share = self._copying(self.copying, row)
        copied = self._sum_by_item(categories, self.history, place)
        total = copied.sum(1, keepdim=True)
        share = share * (total > 0)
        mixed = (1 - share) * logits.softmax(-1) + share * copied / total.clamp(min=LEAST_SHARE)
        return (mixed + LEAST_SHARE).log()

    def losses(
        self, pooled: Tensor, categories: Tensor | None, table: Tensor, labels: Tensor, smoothing: float
    ) -> Tensor:
        """Return the cross-entropy of `forward` with the label of each row, without a logit for every item at once.

        While it is trained, items that are drawn stand for all of them; else it is exact, and has no gradient. What
        smoothing costs is estimated by the items that are drawn evenly.
        Shapes: as of `forward`; labels int64 [b] -> float32 [b].
        """
        row = self._read(pooled)
        query = self.query(row)
        share, copied = self._copied(row, categories, labels)
        if not self.training:
            own = _products(query, self._vectors(table, labels)) + self.bias[labels]
            return -self._log_mixed(own - self._log_total(query, table), share, copied)
        assert self.drawn is not None, "`draw_by` says by what items are drawn"
        drawn, expected = (part.to(query.device) for part in self.drawn.draw())
        # Taken out at once: the gradient of each taking is as large as the table.
        of_labels, of_drawn = self._vectors(table, torch.cat([labels, drawn])).split([len(labels), len(drawn)])
        own = _products(query, of_labels) + self.bias[labels]
        logits = (query @ of_drawn.T).float() + self.bias[drawn]
        others = (logits - expected).masked_fill(drawn == labels[:, None], -torch.inf)
        total = torch.cat([own[:, None], others], 1).logsumexp(1)
        found = self._log_mixed(own - total, share, copied)
        if smoothing:
            even = logits[:, len(drawn) // 2 :] - total[:, None]
            found = (1 - smoothing) * found + smoothing * self._log_mixed(even, share[:, None]).mean(1)
        return -found

    def _log_mixed(self, log_shares: Tensor, share: Tensor, copied: Tensor | float = 0.0) -> Tensor:
        """Return the logarithms of shares of the softmax, mixed with shares of the history as in `forward`."""
        if self.copying is None:
            return log_shares
        mixed = (1 - share) * log_shares.exp() + share * copied
        return (mixed + LEAST_SHARE).log() - math.log1p(len(self.bias) * LEAST_SHARE)

    def _copied(self, row: Tensor, categories: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share of each row's history, and in it that of the row's label. Shapes: float32 [b] twice."""
        if self.copying is None or categories is None:
            none = row.new_zeros(len(row), dtype=torch.float32)
            return none, none
        place, share = self._copying(self.copying, row)
        items = self.item_of_slot[categories[:, self.history] + self.starts[self.history]]
        place = place * (items < len(self.bias))
        total = place.sum(1)
        copied = (place * (items == labels[:, None])).sum(1) / total.clamp(min=LEAST_SHARE)
        return share[:, 0] * (total > 0), copied

    @torch.no_grad()
    def _log_total(self, query: Tensor, table: Tensor) -> Tensor:
        """Return the logarithm of the sum of all items' exponentials. Shapes: [b, d] -> float32 [b]."""
        total = torch.full((len(query),), -torch.inf, device=query.device)
        for items in torch.arange(len(self.bias), device=query.device).split(PIECE_ITEMS):
            logits = (query @ self._vectors(table, items).T).float() + self.bias[items]
            total = torch.logaddexp(total, logits.logsumexp(1))
        return total

    def _vectors(self, table: Tensor, items: Tensor) -> Tensor:
        return table[self.slot_of_item[items]] if self.vectors is None else self.vectors.weight[items]

    def _read(self, pooled: Tensor) -> Tensor:
        return self.dropout(torch.tanh(self.dense(self.dropout(pooled))))

    @staticmethod
    def _copying(copying: nn.Linear, row: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weight of each place of the history, and the share of all. Shapes: float32 [b, h], [b, 1]."""
        weights = copying(row).float()
        return nn.functional.softplus(weights[:, :-1]), weights[:, -1:].sigmoid()

    def draw_by(self, labels: Tensor) -> None:
        """Let items be drawn by the labels of the rows that are learnt from. Shapes: int64 [n]."""
        self.drawn = DrawnItems.by(labels, len(self.bias))

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


def _products(one: Tensor, other: Tensor) -> Tensor:
    """Return the product of each vector with the one beside it. Shapes: [b, d] twice -> float32 [b]."""
    return (one.float() * other.float()).sum(-1)
