"""A linear model of weighted subwords beside the encoder: it reads the whole of a text, where the encoder stops early.

The encoder knows what words mean, the linear model which words tell this product's targets apart, in all of the text;
their errors differ, and the sum of both makes fewer. It is fitted in closed form after the encoder was trained, and
the weight of each of the two is chosen on the validation rows: neither learns to lean on what the other remembers.
Source: Cheng et al., "Wide & Deep Learning for Recommender Systems" (2016).
NOTE[DIFF]: the paper trains both parts jointly, by gradients, on millions of rows.

Shape legend: b rows, n rows of a table, u subwords that a row's bag holds, v the vocabulary, o outputs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.encoded import Encoded
from model.optimum import minimise

RIDGE_TO_LOGITS = 8.0
"""About what turns a ridge regression's answers, 0 for no and 1 for yes, into logits."""
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
        """The encoder's logits and these, each by its weight. Shapes: deep [b, o]; else as in `forward`."""
        return self.mix[0] * deep.float() + self.mix[1] * self(bag, bag_weights)


def _unit(rows: Tensor) -> Tensor:
    length = rows.square().sum(1, keepdim=True).sqrt()
    return rows / length.clamp(min=torch.finfo(torch.float32).tiny)


def fit_wide(
    wide: Wide,
    parts: Sequence[Encoded],
    outputs: np.ndarray,
    penalty: float,
    scale: float,
    row_weights: np.ndarray | None = None,
) -> None:
    """Fit rarity on the bags and weights on what they should answer, by ridge regression; answer `scale` times that.

    Holds the bags of all rows in memory, 12 bytes for each subword of a row.
    Shapes: outputs float [n, o], of the rows of all parts: 1 and 0 for yes and no, or standardised numbers; row_weights
    [n], 1 in the mean.
    """
    from scipy import sparse
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import normalize

    n_ids = len(wide.rarity)
    rows = sparse.vstack([sparse.csr_matrix(_bags(part), shape=(len(part), n_ids)) for part in parts])
    n_with = sum(np.bincount(part.bag, minlength=n_ids) for part in parts)
    rarity = np.where(n_with > 0, np.log((1 + len(outputs)) / (1 + n_with)) + 1, 0.0)
    columns = (rows @ sparse.diags_array(rarity)).tocsc()
    fields = [normalize(field.tocsr()) for field in (columns[:, : wide.n_subwords], columns[:, wide.n_subwords :])]
    units = sparse.hstack(fields, format="csr") / N_FIELDS**0.5
    ridge = Ridge(alpha=penalty, solver="sparse_cg", tol=1e-6).fit(units, outputs, sample_weight=row_weights)
    wide.rarity.copy_(torch.from_numpy(rarity))
    mean = np.average(outputs, axis=0, weights=row_weights)
    wide.weight.copy_(torch.from_numpy(ridge.coef_.reshape(-1, n_ids).T * scale))
    wide.bias.copy_(torch.from_numpy((ridge.intercept_ - mean).reshape(-1) * scale))


def _bags(part: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return part.bag_weights.astype(np.float64), part.bag, part.bag_offsets


def fit_mix(wide: Wide, deep: Tensor, flat: Tensor, loss: Callable[[Tensor], Tensor], drawn_to: float = 1.0) -> None:
    """Choose the weights of both parts, each above 0, by the loss of rows that neither was fitted on.

    `drawn_to` draws each as one more observation would: it decides where few rows, or rows without a mistake, say
    little.
    Shapes: deep and flat (the linear model's logits) [n, o]; loss: [n, o] -> [], summed over the rows.
    """
    moves = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    deep, flat = deep.double(), flat.double()

    def objective() -> Tensor:
        mix = drawn_to * moves.exp()
        return (loss(mix[0] * deep + mix[1] * flat) + moves.square().sum() / 2) / len(deep)

    minimise([moves], objective)
    wide.mix.copy_(drawn_to * moves.detach().exp())
