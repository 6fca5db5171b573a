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

N_FIELDS = 2
"""A text's whole and its beginning (see `subwords.bags`): each a vector of the same length, whatever the text's."""


class Wide(nn.Module):
    """The linear model's logits. Its weights are buffers: no gradient, decay or average of a training moves them."""

    rarity: Tensor
    weight: Tensor
    bias: Tensor
    mix: Tensor

    def __init__(self, n_subwords: int, n_outputs: int) -> None:
        super().__init__()
        self.n_subwords = n_subwords
        self.register_buffer("rarity", torch.ones(N_FIELDS * n_subwords))
        self.register_buffer("weight", torch.zeros(N_FIELDS * n_subwords, n_outputs))
        self.register_buffer("bias", torch.zeros(n_outputs))
        self.register_buffer("mix", torch.tensor([1.0, 0.0]))

    def forward(self, bag: Tensor, bag_weights: Tensor) -> Tensor:
        """Shapes: bag int64 [b, u]; bag_weights float32 [b, u], 0 where the bag is padded; returns [b, o]."""
        weighted = bag_weights * self.rarity[bag]
        is_lead = (bag >= self.n_subwords).to(weighted.dtype)
        whole, lead = _unit(weighted * (1 - is_lead)), _unit(weighted * is_lead)
        return (self.weight[bag] * (whole + lead)[..., None]).sum(1) / N_FIELDS**0.5 + self.bias

    def mixed(self, deep: Tensor, bag: Tensor, bag_weights: Tensor) -> Tensor:
        """Return the encoder's logits and these, each by its weight. Shapes: deep [b, o]; else as in `forward`."""
        return self.mix[0] * deep.float() + self.mix[1] * self(bag, bag_weights)


def _unit(rows: Tensor) -> Tensor:
    length = rows.square().sum(1, keepdim=True).sqrt()
    return rows / length.clamp(min=torch.finfo(torch.float32).tiny)
