"""What is fitted to its optimum once the encoder stands: head of a probe, linear model of subwords, context.

Each takes the network, rows and their truths; the fits themselves are in `model.probe`, `model.wide` and
`model.context`.

Shape legend: n rows, d width, o outputs.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.context import fit_context
from model.device import autocast
from model.encoded import Encoded
from model.features import MAX_FITTED_ROWS, chosen_rows
from model.loss import Loss, outputs
from model.network import Network, answers
from model.probe import fit_probe
from model.wide import RIDGE_TO_LOGITS, fit_mix, fit_wide

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
        pooled = answers(network, network.pooled, encoded, batch_tokens, chosen, name="probe")
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
        scale = 1.0 if network.target.task == "regression" else RIDGE_TO_LOGITS
        weights = None if row_weights is None else row_weights.numpy()
        fit_wide(network.wide, parts, outputs(network.target, truth), penalty, scale, weights)


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
    is_number = network.target.task == "regression"
    # Logits of two models add up, as far as their errors differ; numbers have a mean.
    drawn_to = 0.5 if is_number else 1.0
    if not (is_number or (truth != truth[:1]).any()):
        wide.mix.fill_(drawn_to)
        return

    def parts(batch: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([network.deep(batch).float(), wide(batch["bag"], batch["bag_weights"])], 1)

    deep, flat = answers(network, parts, encoded, batch_tokens).unbind(1)
    loss = Loss(target=network.target, class_weights=class_weights)
    fit_mix(wide, deep, flat, lambda logits: loss(logits, truth), drawn_to)


def explain_by_context(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None
) -> None:
    """Let the context, if there is one, explain what the rest of the network leaves of the rows it was fitted on."""
    if network.context is None:
        return
    assert network.target is not None
    chosen, task = chosen_rows(len(encoded), MAX_FITTED_ROWS), network.target.task
    means = answers(network, network, encoded, batch_tokens, chosen).double()
    if task != "regression":
        means = means.softmax(-1) if task == "multiclass" else means.sigmoid()
    wanted = torch.from_numpy(outputs(network.target, truth[chosen]))
    errors, weights = wanted - means, torch.ones(1, dtype=torch.float64)
    if class_weights is not None:
        many = task == "multiclass"
        no, yes = (0.0, class_weights) if many else class_weights
        weights = torch.where(wanted > 0.5, yes, no).double()
        weights = weights.sum(1, keepdim=True) if many else weights
    match task:
        case "regression":
            weights = 1 / errors.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
            slopes = torch.ones_like(means)
        case "multiclass":
            slopes = means  # not means * (1 - means): what one class gains the others lose, all in one move
        case _:
            slopes = means * (1 - means)
    fit_context(network.context, encoded.context[chosen], (weights * errors).numpy(), (weights * slopes).numpy())
