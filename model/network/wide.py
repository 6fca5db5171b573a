"""A linear model of weighted subwords beside the encoder: it reads the whole of a text, where the encoder stops early.

The encoder knows what words mean, the linear model which words tell this product's targets apart, in all of the text;
their errors differ, and the sum of both makes fewer. It is fitted in closed form after the encoder was trained, and
the weight of each of the two is chosen on the validation rows: neither learns to lean on what the other remembers.
Source: Cheng et al., "Wide & Deep Learning for Recommender Systems" (2016).
NOTE[DIFF]: the paper trains both parts jointly, by gradients, on millions of rows.

Shape legend: b rows, n rows of a table, u subwords that a row's bag holds, v the vocabulary, o outputs.
"""

import torch
from torch import Tensor, nn


class Wide(nn.Module):
    """The linear model's logits. Its weights are buffers: no gradient, decay or average of a training moves them.

    A text's whole, its beginning and its groups of letters (see `subwords.bags`) are a field each: a vector of the same
    length, whatever the text's.
    """

    rarity: Tensor
    weight: Tensor
    bias: Tensor
    mix: Tensor

    def __init__(self, n_subwords: int, n_outputs: int, n_letter_groups: int = 0) -> None:
        super().__init__()
        self.starts = (0, n_subwords, *([2 * n_subwords] if n_letter_groups else []))
        self.n_letter_groups = n_letter_groups
        n_ids = 2 * n_subwords + n_letter_groups
        self.register_buffer("rarity", torch.ones(n_ids))
        self.register_buffer("weight", torch.zeros(n_ids, n_outputs))
        self.register_buffer("bias", torch.zeros(n_outputs))
        self.register_buffer("mix", torch.tensor([1.0, 0.0]))

    def forward(self, bag: Tensor, bag_weights: Tensor) -> Tensor:
        """Shapes: bag int64 [b, u]; bag_weights float32 [b, u], 0 where the bag is padded; returns [b, o]."""
        return weighted_sum(self.weight, bag, self.units(bag, bag_weights)) + self.bias

    def units(self, bag: Tensor, bag_weights: Tensor) -> Tensor:
        """Return what each of a row's bag counts: all fields alike, and a row 1 in length. Shapes: as in `forward`."""
        fields = [self._field(number, bag, bag_weights) for number in range(len(self.starts))]
        return torch.stack(fields).sum(0) / len(fields) ** 0.5

    def letters(self, bag: Tensor, bag_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of a row's groups of letters, and what each counts: 1 in length, and 0 of all else.

        Shapes: as in `forward` -> int64 [b, u], float32 [b, u].
        """
        return (bag - self.starts[-1]).clamp(min=0), self._field(len(self.starts) - 1, bag, bag_weights)

    def _field(self, number: int, bag: Tensor, bag_weights: Tensor) -> Tensor:
        weighted = bag_weights * self.rarity[bag]
        is_inside = bag >= self.starts[number]
        if number + 1 < len(self.starts):
            is_inside = is_inside & (bag < self.starts[number + 1])
        return _unit(weighted * is_inside.to(weighted.dtype))

    def mixed(self, deep: Tensor, bag: Tensor, bag_weights: Tensor) -> Tensor:
        """Return the encoder's logits and these, each by its weight. Shapes: deep [b, o]; else as in `forward`."""
        return self.mix[0] * deep.float() + self.mix[1] * self(bag, bag_weights)


def weighted_sum(weight: Tensor, bag: Tensor, units: Tensor) -> Tensor:
    """Return the sum of the weights of each row's bag. Shapes: [ids, o], [b, u], [b, u] -> [b, o]."""
    return (weight[bag] * units[..., None]).sum(1)


def _unit(rows: Tensor) -> Tensor:
    length = rows.square().sum(1, keepdim=True).sqrt()
    return rows / length.clamp(min=torch.finfo(torch.float32).tiny)
