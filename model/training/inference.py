"""Predict in batches with a torch network, without gradients, and measure its loss."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.compute import distributed
from model.compute.device import autocast, eager
from model.features.batches import batches
from model.features.encoded import Encoded
from model.features.fitting import chosen_rows
from model.network.network import Network
from model.training.loss import Loss

MAX_PROBED_ROWS = 100_000
"""Rows of which `encode_once` holds the output in memory; of more it takes a sample."""


@torch.inference_mode()
def sum_in_batches(
    network: Network, loss: Callable[[np.ndarray], Tensor], encoded: Encoded, batch_tokens: int
) -> float:
    """Return the sum of a loss over all rows. Shapes: loss: numbers of b rows -> [b, ...]."""
    network.eval()
    total = 0.0
    for chosen in batches(encoded, batch_tokens):
        with eager(network.device), autocast(network.device):
            total += float(loss(chosen).sum())
    return total


@torch.inference_mode()
def predict_in_batches(
    network: Network,
    part: Callable[[Mapping[str, Tensor]], Tensor],
    encoded: Encoded,
    batch_tokens: int,
    chosen: np.ndarray | None = None,
    name: str | None = None,
) -> Tensor:
    """Return the output of a part of the network for every row, or for those in `chosen`.

    Shows its progress under `name`.
    Shapes: part: a batch -> [b, ...]; returns float32 [n, ...], on the CPU.
    """
    outputs = torch.empty(0)
    cut = batches(encoded, batch_tokens, chosen=chosen)
    for rows in tqdm(cut, desc=name, unit="batch", disable=name is None or distributed.rank() > 0):
        with eager(network.device):
            batch = network.batch_of(encoded, rows if chosen is None else chosen[rows])
            output = part(batch).float().cpu()
        if not outputs.numel():
            outputs = torch.empty(len(encoded) if chosen is None else len(chosen), *output.shape[1:])
        outputs[rows] = output
    return outputs


def encode_once(network: Network, encoded: Encoded, batch_tokens: int) -> tuple[Encoded, Tensor, np.ndarray]:
    """Run the encoder over at most MAX_PROBED_ROWS rows, in the precision of training.

    Returns the rows, which carry the encoder's output if it is that of all of them; what the head reads, float32
    [n, d]; and which rows these are, int64 [n].
    """
    network.eval()
    chosen = chosen_rows(len(encoded), MAX_PROBED_ROWS)
    with autocast(network.device):
        pooled = predict_in_batches(network, network.pooled, encoded, batch_tokens, chosen, name="probe")
    return replace(encoded, pooled=pooled.numpy()) if len(chosen) == len(encoded) else encoded, pooled, chosen


@torch.no_grad()
def evaluate_loss(
    network: Network,
    encoded: Encoded,
    labels: Tensor,
    batch_tokens: int,
    class_weights: Tensor | None = None,
    *,
    doubts: bool = False,
) -> float:
    """Return the mean loss per row, without smoothing or dropout.

    With `doubts` one more row counts, whose label is drawn at random: of few rows without a mistake the surest network
    would be the best, and the next mistake would cost it all. Shapes: labels as of `loss.loss_labels`.
    """
    network.eval()
    assert network.target is not None
    n_rows = len(encoded)
    doubts = doubts and network.target.head.has_probabilities
    drawn = labels[torch.from_numpy(np.random.default_rng(n_rows).permutation(n_rows))]
    loss, device = Loss(target=network.target, class_weights=class_weights), network.device
    total = torch.zeros((), dtype=torch.float64)
    for rows in batches(encoded, batch_tokens)[distributed.rank() :: distributed.n_ranks()]:
        with autocast(device), eager(device):
            batch = network.batch_of(encoded, rows)
            if network.target.has_many_items:
                total += loss.of_batch(network, batch, labels[rows]).double().cpu()
                continue
            logits = network(batch)
        total += loss(logits, labels[rows]).double().cpu()
        if doubts:
            total += loss(logits, drawn[rows]).double().cpu() / n_rows
    network.train()
    total = total.to(device)
    distributed.all_reduce_sum([total])
    return float(total) / (n_rows + doubts)
