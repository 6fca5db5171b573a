"""Pretraining by masked modelling and supervised training, on tensors alone.

The same seed on the same machine gives the same weights, bit for bit, also where a training was killed and resumed.
Nothing is written here: files are the caller's, checkpoints are kept by what it hands over.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.compute import distributed
from model.compute.device import autocast, deterministic, device, eager
from model.features.batches import INPUTS, batches
from model.features.encoded import Encoded
from model.features.fitted import UNKNOWN, Features
from model.network.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.training.calibration import calibrate, calibration_after_refit
from model.training.closed_forms import explain_by_context, fit_head, fit_linear, mix_linear, read_once
from model.training.loss import Loss, balanced_class_weights, loss_labels, recency_weights
from model.training.masking import MaskedModel, hide
from model.training.optimisation import Checkpoints, History, Optimisation

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
        with distributed.shard_batch(drop_categories(batch)) as shard:
            hidden_part = hidden.of(shard.rows)
            value = model(shard.batch, hidden_part)
        return value if distributed.n_ranks() == 1 else value * (shard.weight * hidden_part.count / hidden.count)

    with deterministic(settings.seed):
        history = Optimisation(model, encoded, settings, "pretrain", checkpoints).run(loss)
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
) -> tuple[Network, History]:
    """The network with the weights that `settings.keep` names, calibrated on the validation rows, and all losses.

    With `refit`, what is fitted in closed form (linear model of subwords, head of a probe alone) is fitted at last to
    the validation rows too: they then measure nothing any more. `settings.refit`, a second training with them, is the
    caller's to ask for, by `train_again`. `on_epoch` is called with each epoch's entry of the history; what it raises
    ends the training. `age_days` is how much older each training row is than the newest, which
    `settings.half_life_days` needs; `n_later_days` how many days the validation rows are of, where these are later
    than the training rows', for `model.training.calibration`.
    Shapes: y int [n] for binary and multiclass, float [n, C] for multilabel, float [n] for regression; age_days [n].
    Raises: ValueError for no rows or labels that do not fit, FloatingPointError when the loss is not finite.
    """
    lesson = Fit(network, features, encoded_train, y_train, settings, age_days)
    truth_val = _truths(network, encoded_val, y_val, "validation")
    probes_alone = settings.probe and not settings.epochs

    def validate() -> float:
        return evaluate_loss(network, encoded_val, truth_val, settings.batch_tokens, lesson.class_weights)

    history: History = []
    with deterministic(settings.seed):
        if settings.probe:
            pooled, chosen = lesson.read_once()
            if probes_alone:  # what the encoder says of a row is the same from here on
                encoded_val, pooled_val, chosen_val = read_once(network, encoded_val, settings.batch_tokens)
            train_loss = lesson.fit_head(pooled, chosen)
            history = [{"epoch": 0.0, "train_loss": train_loss, "val_loss": validate()}]
        if settings.epochs:
            history = lesson.take_steps("train", checkpoints, validate, on_epoch)
        lesson.fit_linear()
        mix_linear(network, encoded_val, truth_val, settings.batch_tokens, lesson.class_weights)
        lesson.explain_by_context()
        if settings.calibrate:
            calibrate(network, encoded_val, y_val, settings.batch_tokens, n_later_days)
        if refit:
            # All is chosen: the validation rows, too, can say which words tell, and what the encoder's answers mean.
            lesson.add(encoded_val, truth_val)
            lesson.fit_linear()
            if probes_alone and lesson.row_weights is None:
                chosen = np.concatenate([chosen, len(encoded_train) + chosen_val])
                lesson.fit_head(torch.cat([pooled, pooled_val]), chosen)
    return network.cpu().eval(), history


def train_again(
    first: Network,
    network: Network,
    features: Features,
    encoded: Encoded,
    y: np.ndarray,
    settings: TrainingSettings,
    checkpoints: Checkpoints | None = None,
    age_days: np.ndarray | None = None,
    n_later_days: int | None = None,
) -> tuple[Network, History]:
    """The second training of `settings.refit`: from the same start, on training and validation rows together.

    What `first`, the first training's network, found on the validation rows while they were unseen is taken over:
    the mix with the linear model, and the calibration as `model.training.calibration.calibration_after_refit` says.
    Shapes, errors and the other arguments: as of `train`; the history has no validation loss.
    """
    lesson = Fit(network, features, encoded, y, settings, age_days)
    with deterministic(settings.seed):
        if settings.probe:
            lesson.fit_head(*lesson.read_once())
        history = lesson.take_steps("train again", checkpoints)
        lesson.fit_linear()
        if network.wide is not None and first.wide is not None:
            network.wide.mix.copy_(first.wide.mix)
        lesson.explain_by_context()
        assert first.target is not None
        network.target = calibration_after_refit(first.target, n_later_days)
    return network.cpu().eval(), history


class Fit:
    """A network, the rows that it learns from, and the ways it learns from them."""

    def __init__(
        self,
        network: Network,
        features: Features,
        encoded: Encoded,
        y: np.ndarray,
        settings: TrainingSettings,
        age_days: np.ndarray | None,
    ) -> None:
        if network.target is None or network.sizes != features.sizes:
            raise ValueError(
                "network must have a target and be built for the given features, got another; "
                "use Network.answering or load_pretrained"
            )
        self.network, self.settings = network, settings
        self.parts, self.truth = [encoded], _truths(network, encoded, y, "training")
        self.row_weights = recency_weights(age_days, settings.half_life_days)
        weighs = settings.class_weights == "balanced"
        self.class_weights = balanced_class_weights(network.target, self.truth) if weighs else None
        self.loss = Loss(target=network.target, smoothing=settings.label_smoothing, class_weights=self.class_weights)
        _compile(network.to(device()))

    def add(self, encoded: Encoded, truth: Tensor) -> None:
        """More rows, of full weight, for the fits in closed form."""
        self.parts.append(encoded)
        self.truth = torch.cat([self.truth, truth])
        if self.row_weights is not None:
            self.row_weights = torch.cat([self.row_weights, torch.ones(len(truth))])

    def read_once(self) -> tuple[Tensor, np.ndarray]:
        """What the encoder says of the rows and where these stand, as of `model.training.closed_forms.read_once`."""
        read, pooled, chosen = read_once(self.network, self.parts[0], self.settings.batch_tokens)
        if not self.settings.epochs:
            self.parts[0] = read
        return pooled, chosen

    def fit_head(self, pooled: Tensor, chosen: np.ndarray) -> float:
        """Fit the head to the pooled rows; return its loss."""
        weights = None if self.row_weights is None else self.row_weights[chosen]
        return fit_head(self.network, pooled, self.truth[chosen], self.loss, weights)

    def take_steps(
        self,
        name: str,
        checkpoints: Checkpoints | None,
        validate: Callable[[], float] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
    ) -> History:
        """Descend, showing progress under `name`, and have the weights that `settings.keep` names."""
        steps = Optimisation(self.network, self.parts[0], self.settings, name, checkpoints)
        history = steps.run(self._mean_loss, validate, on_epoch)
        self.network.load_state_dict(steps.best)
        return history

    def fit_linear(self) -> None:
        """Fit the linear model of subwords."""
        self.network.eval()
        fit_linear(self.network, self.parts, self.truth, self.settings.wide_penalty, self.row_weights)

    def explain_by_context(self) -> None:
        """Fit the effects of the context columns."""
        explain_by_context(self.network, self.parts[0], self.truth, self.settings.batch_tokens, self.class_weights)

    def _mean_loss(self, rows: np.ndarray) -> Tensor:
        batch = drop_categories(self.network.batch_of(self.parts[0], rows))
        with distributed.shard_batch(batch) as shard:
            logits = self.network(shard.batch)
        chosen = rows[shard.rows]
        weights = None if self.row_weights is None else self.row_weights[chosen]
        return self.loss(logits, self.truth[chosen], weights) * (shard.weight / len(rows))


@torch.no_grad()
def evaluate_loss(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None = None
) -> float:
    """Mean loss per row, without smoothing or dropout. Shapes: truth as of `model.training.loss.loss_labels`."""
    network.eval()
    assert network.target is not None
    loss, where = Loss(target=network.target, class_weights=class_weights), network.where
    total = torch.zeros((), dtype=torch.float64)
    for rows in batches(encoded, batch_tokens)[distributed.rank() :: distributed.n_ranks()]:
        with autocast(where), eager(where):
            logits = network(network.batch_of(encoded, rows))
        total += loss(logits, truth[rows]).double().cpu()
    network.train()
    total = total.to(where)
    distributed.all_reduce_sum([total])
    return float(total) / len(encoded)


def _compile(network: Network) -> None:
    """Fuse what a GPU does in a block; all blocks are alike, so one is compiled for all."""
    if network.where.type == "cuda":
        for block in network.encoder.layer:
            block.compile(dynamic=True)


def drop_categories(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with a few categories made unknown."""
    if "categories" not in batch:
        return batch
    categories = batch["categories"]
    forgotten = (torch.rand(categories.shape) < UNKNOWN_FRACTION).to(categories.device)
    return {**batch, "categories": torch.where(forgotten, UNKNOWN, categories)}


def _truths(network: Network, encoded: Encoded, y: np.ndarray, name: str) -> Tensor:
    """What the rows called `name` have for labels, checked."""
    assert network.target is not None
    truth = loss_labels(network.target, y)
    if len(encoded) == 0 or len(encoded) != len(truth):
        raise ValueError(
            f"{name} rows must be at least one and each have a label, "
            f"got {len(encoded)} rows and {len(truth)} labels; check the split"
        )
    if not truth.isfinite().all():
        raise ValueError(f"{name} labels must be finite, got NaN; leave rows without a label out")
    return truth
