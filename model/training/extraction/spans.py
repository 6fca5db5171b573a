"""Learn where in the texts of rows their answers stand, or that they stand nowhere."""

from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from model.compute import distributed
from model.compute.device import device
from model.features.answers.occurrences import SpanLabels
from model.features.encoded import Encoded, Sizes
from model.features.kinds import TEXT, kind_class
from model.network.network import Network
from model.settings import TrainingPlan
from model.training.inference import sum_in_batches
from model.training.masking import disturb
from model.training.optimisation import Course, History, optimised

HIDDEN_SHARE = 0.5
"""Of the subwords, while answers are learnt."""
LABELS = "span_labels"
"""Of a batch: where the answers of its rows stand."""


def learn_spans(
    network: Network,
    rows: tuple[Encoded, SpanLabels],
    validation: tuple[Encoded, SpanLabels],
    plan: TrainingPlan,
    **course: Unpack[Course],
) -> tuple[Network, History]:
    """Return the network that has learnt where answers stand, with the weights that `plan.keep` names.

    Losses are nats per row.
    """
    network = network.to(device())

    def loss(chosen: np.ndarray) -> Tensor:
        batch = hide_words(disturb(_batch(network, *rows, chosen), network.sizes, plan), network.sizes)
        with distributed.shard_batch(batch) as shard:
            return _nats(network, shard.batch).sum() * shard.weight / len(chosen)

    def validate() -> float:
        return span_loss(network, *validation, plan.batch_tokens)

    return optimised(network, rows[0], plan, loss, validate, **course)


def hide_words(batch: dict[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """Return a batch of which HIDDEN_SHARE of the subwords read [MASK]; their facts stay.

    What few rows ask for is soon known by heart, word by word. So it is learnt where an answer stands, rather than
    which words are answers.
    """
    name = kind_class(TEXT).input
    text = batch[name]
    is_mark = (text == sizes.sep_id) | (text == sizes.pad_id)
    hidden = (torch.rand(text.shape) < HIDDEN_SHARE).to(text.device) & ~is_mark
    return {**batch, name: torch.where(hidden, sizes.mask_id, text)}


def span_loss(network: Network, encoded: Encoded, labels: SpanLabels, batch_tokens: int) -> float:
    """Return the mean negative log-probability of the answers, in nats."""

    def nats(chosen: np.ndarray) -> Tensor:
        return _nats(network, _batch(network, encoded, labels, chosen))

    return sum_in_batches(network, nats, encoded, batch_tokens) / max(1, len(encoded))


def _batch(network: Network, encoded: Encoded, labels: SpanLabels, chosen: np.ndarray) -> dict[str, Tensor]:
    places = torch.from_numpy(labels.batch(chosen)).to(network.device)
    return {**network.batch_of(encoded, chosen), LABELS: places}


def _nats(network: Network, batch: dict[str, Tensor]) -> Tensor:
    """Return the negative log-probability of each row's answer. Shapes: -> [b]."""
    assert network.span is not None
    return network.span.nats(network, batch, batch[LABELS])
