"""Pretraining by masked modelling and supervised training, on tensors alone.

The same seed on the same machine gives the same weights, bit for bit, also where a training was killed and resumed.
Nothing is written here: files are the caller's, checkpoints are kept by what it hands over.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model import ranks
from model.batches import INPUTS, batches
from model.calibration import calibrate, carried_over
from model.closed_forms import explain_by_context, fit_head, fit_linear, mix_linear, read_once
from model.device import autocast, device, repeatable
from model.encoded import Encoded
from model.features import UNKNOWN, Features
from model.loss import Loss, balanced, faded, truths
from model.masking import MaskedModel, hide
from model.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.steps import Checkpoints, History, Steps

UNKNOWN_FRACTION = 0.01
"""Share of categories shown as unknown while training, so that the unknown slot has a meaning."""


def pretrain(
    features: Features,
    encoded: Encoded,
    network_settings: NetworkSettings,
    settings: PretrainingSettings,
    start: Network | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[Network, History]:
    """A network without a head that has learnt to fill in what is hidden of a row.

    Begins at `start` (imported weights, say) if it is given. The history has one entry per epoch with the
    loss in units of a blind guess.
    Raises: ValueError when there is no row, FloatingPointError when the loss is no longer finite.
    """
    network = start or Network(network_settings, features.sizes, seed=settings.seed)
    model = MaskedModel(network, settings.seed).to(device())
    _compile(network)

    def loss(rows: np.ndarray) -> Tensor:
        # Each window of a row is guessed by itself.
        batch = network.batch_of(encoded, rows)
        batch = {name: batch[name] for name in INPUTS if name in batch}
        hidden = hide(batch, network, settings.mask_fraction)
        part, mine, weight = ranks.share(_forgetful(batch))
        its = hidden.of(mine)
        value = model(part, its)
        return value if ranks.n_ranks() == 1 else value * (weight * its.count / hidden.count)

    with repeatable(settings.seed):
        history = Steps(model, encoded, settings, "pretrain", checkpoints).run(loss)
    return network.cpu().eval(), history


def train(
    network: Network,
    features: Features,
    encoded_train: Encoded,
    y_train: np.ndarray,
    encoded_val: Encoded,
    y_val: np.ndarray,
    settings: TrainingSettings,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoints: Checkpoints | None = None,
    age_days: np.ndarray | None = None,
    refit: bool = True,
    n_later_days: int | None = None,
    first: Network | None = None,
) -> tuple[Network, History]:
    """The network with the weights that `settings.keep` names, calibrated on the validation rows, and all losses.

    With `refit`, what is fitted in closed form (linear model of subwords, head of a probe alone) is fitted at last to
    the validation rows too: they then measure nothing any more. `on_epoch` is called with each epoch's entry of the
    history; what it raises ends the training. `age_days` is how much older each training row is than the newest,
    which `settings.half_life_days` needs; `n_later_days` how many days the validation rows are of, where these are
    later than the training rows', for `model.calibration`. With `first`, a network for which the validation rows were
    unseen, they may be among the training rows: what it found on them, calibration and mix, is taken over. That is the
    second training of `settings.refit`, which is the caller's to ask for.
    Shapes: y int [n] for binary and multiclass, float [n, C] for multilabel, float [n] for regression; age_days [n].
    Raises: ValueError for no rows or labels that do not fit, FloatingPointError when the loss is not finite.
    """
    if network.target is None or network.sizes != features.sizes:
        raise ValueError(
            "network must have a target and be built for the given features, got another; "
            "use Network.answering or load_pretrained"
        )
    target, batch_tokens = network.target, settings.batch_tokens
    truth_train, truth_val = truths(target, y_train), truths(target, y_val)
    _check_rows(encoded_train, truth_train, "training")
    _check_rows(encoded_val, truth_val, "validation")
    _compile(network.to(device()))
    class_weights = balanced(target, truth_train) if settings.class_weights == "balanced" else None
    loss = Loss(target=target, smoothing=settings.label_smoothing, class_weights=class_weights)
    row_weights = faded(age_days, settings.half_life_days)

    def mean_loss(rows: np.ndarray) -> Tensor:
        part, mine, weight = ranks.share(_forgetful(network.batch_of(encoded_train, rows)))
        its = rows[mine]
        total = loss(network(part), truth_train[its], None if row_weights is None else row_weights[its])
        return total * (weight / len(rows))

    def validate() -> float:
        return evaluate_loss(network, encoded_val, truth_val, batch_tokens, class_weights)

    history: History = []
    with repeatable(settings.seed):
        if settings.probe:
            read_train, pooled, chosen = read_once(network, encoded_train, batch_tokens)
            if not settings.epochs:  # what the encoder says of a row is the same from here on
                encoded_train = read_train
                encoded_val, pooled_val, chosen_val = read_once(network, encoded_val, batch_tokens)
            its = None if row_weights is None else row_weights[chosen]
            train_loss = fit_head(network, pooled, truth_train[chosen], loss, its)
            history = [{"epoch": 0.0, "train_loss": train_loss, "val_loss": validate()}]
        if settings.epochs:
            steps = Steps(network, encoded_train, settings, "train", checkpoints)
            history = steps.run(mean_loss, validate, on_epoch)
            network.load_state_dict(steps.best)
        network.eval()
        fit_linear(network, [encoded_train], truth_train, settings.wide_penalty, row_weights)
        if first is None:
            mix_linear(network, encoded_val, truth_val, batch_tokens, class_weights)
        elif network.wide is not None and first.wide is not None:
            network.wide.mix.copy_(first.wide.mix)
        explain_by_context(network, encoded_train, truth_train, batch_tokens, class_weights)
        if first is not None and first.target is not None:
            network.target = carried_over(first.target, n_later_days)
        elif settings.calibrate:
            calibrate(network, encoded_val, y_val, batch_tokens, n_later_days)
        if refit and first is None:
            # All is chosen: the validation rows, too, can say which words tell, and what the encoder's answers mean.
            truth = torch.cat([truth_train, truth_val])
            weights = None if row_weights is None else torch.cat([row_weights, torch.ones(len(truth_val))])
            fit_linear(network, [encoded_train, encoded_val], truth, settings.wide_penalty, weights)
            if not settings.epochs and row_weights is None:
                truth = torch.cat([truth_train[chosen], truth_val[chosen_val]])
                fit_head(network, torch.cat([pooled, pooled_val]), truth, loss, None)
    return network.cpu().eval(), history


@torch.no_grad()
def evaluate_loss(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None = None
) -> float:
    """Mean loss per row, without smoothing or dropout. Shapes: truth as of `model.loss.truths`."""
    network.eval()
    assert network.target is not None
    loss, where = Loss(target=network.target, class_weights=class_weights), network.where
    total = torch.zeros((), dtype=torch.float64)
    for rows in batches(encoded, batch_tokens)[ranks.rank() :: ranks.n_ranks()]:
        with autocast(where):
            logits = network(network.batch_of(encoded, rows))
        total += loss(logits, truth[rows]).double().cpu()
    network.train()
    total = total.to(where)
    ranks.sum_in_place([total])
    return float(total) / len(encoded)


def _compile(network: Network) -> None:
    """Fuse what a GPU does in a block; all blocks are alike, so one is compiled for all."""
    if network.where.type == "cuda":
        for block in network.encoder.layer:
            block.compile(dynamic=True)


def _forgetful(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with a few categories made unknown."""
    if "categories" not in batch:
        return batch
    categories = batch["categories"]
    forgotten = (torch.rand(categories.shape) < UNKNOWN_FRACTION).to(categories.device)
    return {**batch, "categories": torch.where(forgotten, UNKNOWN, categories)}


def _check_rows(encoded: Encoded, truth: Tensor, name: str) -> None:
    if len(encoded) == 0 or len(encoded) != len(truth):
        raise ValueError(
            f"{name} rows must be at least one and each have a label, "
            f"got {len(encoded)} rows and {len(truth)} labels; check the split"
        )
    if not truth.isfinite().all():
        raise ValueError(f"{name} labels must be finite, got NaN; leave rows without a label out")
