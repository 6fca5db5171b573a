"""Learn to write labels that are texts: the loss is of their subwords alone, the row before them is only read."""

from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from model.compute import distributed
from model.compute.device import device
from model.features.encoded import Encoded
from model.features.label_texts import UNWANTED, LabelTexts
from model.network.network import Network
from model.settings import OptimisationSettings
from model.training.inference import sum_in_batches
from model.training.masking import disturb
from model.training.optimisation import Course, History, optimised

READ, WANTED = "read_ids", "wanted_ids"
"""Of a batch: the subwords that are read of each text, and those that come next."""


def learn_labels(
    network: Network,
    rows: tuple[Encoded, LabelTexts],
    validation: tuple[Encoded, LabelTexts],
    plan: OptimisationSettings,
    **course: Unpack[Course],
) -> tuple[Network, History]:
    """Return the network that has learnt to write the labels of rows, with the weights that `plan.keep` names.

    By default these are the best. Losses are nats per subword.
    """
    network = network.to(device())

    def loss(chosen: np.ndarray) -> Tensor:
        batch = disturb(_batch(network, *rows, chosen), network.sizes, plan)
        n_wanted = (batch[WANTED] != UNWANTED).sum()
        with distributed.shard_batch(batch) as shard:
            return _nats(network, shard.batch).sum() * shard.weight / n_wanted

    def validate() -> float:
        return label_loss(network, *validation, plan.batch_tokens)

    return optimised(network, rows[0], plan, loss, validate, **course)


def label_loss(network: Network, encoded: Encoded, labels: LabelTexts, batch_tokens: int) -> float:
    """Return the mean negative log-likelihood of the labels' subwords, in nats."""

    def nats(chosen: np.ndarray) -> Tensor:
        return _nats(network, _batch(network, encoded, labels, chosen))

    return sum_in_batches(network, nats, encoded, batch_tokens) / max(1, len(labels.ids))


def _batch(network: Network, encoded: Encoded, labels: LabelTexts, chosen: np.ndarray) -> dict[str, Tensor]:
    read, wanted = (torch.from_numpy(array).to(network.device) for array in labels.batch(chosen))
    return {**network.batch_of(encoded, chosen), READ: read, WANTED: wanted}


def _nats(network: Network, batch: dict[str, Tensor]) -> Tensor:
    """Return the negative log-likelihood of each subword, 0 where a shorter text has none. Shapes: -> [b, t]."""
    assert network.decoder is not None
    wanted = batch[WANTED]
    nats = network.decoder.nats(network, batch, batch[READ], wanted.clamp(min=0))
    return torch.where(wanted != UNWANTED, nats, 0.0)
