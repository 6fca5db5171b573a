"""Predict in batches with a torch network, without gradients."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.compute import distributed
from model.compute.device import eager
from model.features.batches import batches
from model.features.encoded import Encoded
from model.network.network import Network


@torch.inference_mode()
def predict_in_batches(
    network: Network,
    part: Callable[[Mapping[str, Tensor]], Tensor],
    encoded: Encoded,
    batch_tokens: int,
    chosen: np.ndarray | None = None,
    name: str | None = None,
) -> Tensor:
    """What a part of the network says of every row, or of those in `chosen`; shows its progress under `name`.

    Shapes: part: a batch -> [b, ...]; returns float32 [n, ...], on the CPU.
    """
    cut = batches(encoded, batch_tokens, chosen=chosen)
    answered = torch.empty(0)
    for at in tqdm(cut, desc=name, unit="batch", disable=name is None or distributed.rank() > 0):
        with eager(network.where):
            its = part(network.batch_of(encoded, at if chosen is None else chosen[at])).float().cpu()
        if not answered.numel():
            answered = torch.empty(len(encoded) if chosen is None else len(chosen), *its.shape[1:])
        answered[at] = its
    return answered
