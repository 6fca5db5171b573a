"""What is fitted to its optimum once the encoder stands: head of a probe, linear model of subwords, context.

Each takes the network, rows and their labels.

Shape legend: n rows, d width, o outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.compute.device import autocast
from model.features.encoded import Encoded
from model.features.fitted import MAX_FITTED_ROWS, chosen_rows
from model.network.context import Context
from model.network.network import Head, Network
from model.network.wide import N_FIELDS, Wide
from model.training.inference import predict_in_batches
from model.training.loss import Loss
from model.training.optimum import minimise

MAX_PROBED_ROWS = 100_000
"""Rows that a head is fitted to; a sample, where there are more: what the encoder says of them is held in memory."""


def read_once(network: Network, encoded: Encoded, batch_tokens: int) -> tuple[Encoded, Tensor, np.ndarray]:
    """Let the encoder read rows once and for all, in the precision of training: at most MAX_PROBED_ROWS.

    Returns the rows, which then carry what it says, if that is said of all of them; it, float32 [n, d]; and where the
    rows stand of which it is said, int64 [n].
    """
    network.eval()
    chosen = chosen_rows(len(encoded), MAX_PROBED_ROWS)
    with autocast(network.where):
        pooled = predict_in_batches(network, network.pooled, encoded, batch_tokens, chosen, name="probe")
    return replace(encoded, pooled=pooled.numpy()) if len(chosen) == len(encoded) else encoded, pooled, chosen


def fit_head(network: Network, pooled: Tensor, truth: Tensor, loss: Loss, row_weights: Tensor | None) -> float:
    """Fit the head to what it reads; returns the mean loss. Shapes: pooled [n, d]; else as of `Loss`."""
    assert network.head is not None
    fit_probe(network.head, pooled, lambda logits: loss(logits, truth, row_weights))
    with torch.no_grad():
        return float(loss(network.head.eval()(pooled.to(network.where)), truth, row_weights)) / len(truth)


def fit_linear(
    network: Network, parts: list[Encoded], truth: Tensor, penalty: float, row_weights: Tensor | None
) -> None:
    """Fit the linear model of subwords, if there is one, to the rows of all parts.

    Shapes: truth and row_weights of all, end to end.
    """
    if network.wide is not None:
        assert network.target is not None
        head = network.target.head
        outputs = head.outputs(truth, network.target.n_outputs).numpy()
        weights = None if row_weights is None else row_weights.numpy()
        fit_wide(network.wide, parts, outputs, penalty, head.ridge_scale, weights)


def mix_linear(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None
) -> None:
    """Choose the weights of encoder and linear model on rows that neither was fitted on.

    Where one class is all that these rows hold they say nothing, and both weigh as without any row.
    """
    wide = network.wide
    if wide is None:
        return
    assert network.target is not None
    drawn_to = network.target.head.mix_prior
    if network.target.head.has_classes and not (truth != truth[:1]).any():
        wide.mix.fill_(drawn_to)
        return

    def parts(batch: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([network.deep(batch).float(), wide(batch["bag"], batch["bag_weights"])], 1)

    deep, flat = predict_in_batches(network, parts, encoded, batch_tokens).unbind(1)
    loss = Loss(target=network.target, class_weights=class_weights)
    fit_mix(wide, deep, flat, lambda logits: loss(logits, truth), drawn_to)


def explain_by_context(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None
) -> None:
    """Let the context, if there is one, explain what the rest of the network leaves of the rows it was fitted on."""
    if network.context is None:
        return
    assert network.target is not None
    head, chosen = network.target.head, chosen_rows(len(encoded), MAX_FITTED_ROWS)
    logits = predict_in_batches(network, network, encoded, batch_tokens, chosen).double()
    outputs = head.outputs(truth[chosen], network.target.n_outputs)
    scores, informations = head.score_and_information(logits, outputs, class_weights)
    fit_context(network.context, encoded.context[chosen], scores.numpy(), informations.numpy())


TANH_INPUT_RMS = 0.25
"""Root mean square of what enters the head's tanh: it bends that hardly at all."""
PRIOR_WEIGHT = 10.0
"""A row's weight against that of small weights, where a row's length is 1."""


def fit_probe(head: Head, pooled: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
    """Fit `head` to the answers that `loss` knows: its first map scales, its second is a regression.

    Shapes: pooled [n, d]; loss: logits [n, o] -> [], summed over the rows.
    """
    pooled = pooled.double()
    gain = TANH_INPUT_RMS / pooled.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    with torch.no_grad():
        head.dense.weight.copy_(torch.eye(pooled.shape[1]) * gain)
        head.dense.bias.zero_()
    rows = torch.tanh(pooled * gain)
    penalty = rows.square().sum(1).mean() / (2 * PRIOR_WEIGHT)
    weight, bias = (torch.zeros(part.shape, dtype=torch.float64, requires_grad=True) for part in head.out.parameters())
    minimise([weight, bias], lambda: (loss(rows @ weight.T + bias) + penalty * weight.square().sum()) / len(rows))
    with torch.no_grad():
        head.out.weight.copy_(weight)
        head.out.bias.copy_(bias)


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
    rows = sparse.vstack([sparse.csr_matrix(bags_of_subwords(part), shape=(len(part), n_ids)) for part in parts])
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


def bags_of_subwords(part: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, subwords and offsets of the bags of a part."""
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


EXPECTED_EFFECT = 0.2
"""How far a standard deviation of a context column moves a logit, as a guess before any row is seen."""
DIGITS = 4
"""Of a standardised value: contexts that agree in these are one."""


def fit_context(context: Context, columns: np.ndarray, scores: np.ndarray, informations: np.ndarray) -> None:
    """Fit the line through what the rows of each context leave unexplained.

    Shapes: columns float32 [n, k], standardised; scores float64 [n, o]: the slope of each row's log-likelihood in its
    logits; informations float64 [n, o]: by how much a step of the logit takes from that slope.
    """
    shared, which = np.unique(columns.round(DIGITS), axis=0, return_inverse=True)
    for output, (score, information) in enumerate(zip(scores.T, informations.T, strict=True)):
        line = line_of(shared.astype(np.float64), sum_by_context(score, which), sum_by_context(information, which))
        context.weight[:, output] = torch.from_numpy(line)


def sum_by_context(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the sum of the values of each context."""
    return np.bincount(which.ravel(), values)


def line_of(shared: np.ndarray, score: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Its slopes; it need not go through zero. Shapes: shared [g, k]; score and information, summed, [g] -> [k]."""
    weighs = information > 0
    shared, score, information = shared[weighs], score[weighs], information[weighs]
    moves = score / information  # one step of Newton's: how far each context's logits should move
    weights = 1 / (1 / information + variance_between(moves, information))
    terms = np.column_stack([np.ones(len(shared)), shared])
    penalty = np.diag([0.0, *[EXPECTED_EFFECT**-2] * shared.shape[1]])
    squares = terms.T @ (weights[:, None] * terms) + penalty
    return np.linalg.lstsq(squares, terms.T @ (weights * moves), rcond=None)[0][1:]


def variance_between(moves: np.ndarray, information: np.ndarray) -> float:
    """By how much the contexts' moves vary beyond what the number of their rows explains. Shapes: [g], [g]."""
    total = information.sum()
    if not len(moves):
        return 0.0
    surplus = (information * (moves - (information @ moves) / total) ** 2).sum() - (len(moves) - 1)
    apart = total - (information**2).sum() / total
    return max(0.0, surplus / apart) if apart > 0 else 0.0
