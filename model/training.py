"""Pretraining by masked modelling and supervised training, on tensors alone.

The same seed on the same machine gives the same weights, bit for bit. Nothing is written: files and
checkpoints are the caller's.
"""

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from model.batches import batches, collate
from model.calibration import calibrate
from model.device import autocast, device, repeatable
from model.encoded import Encoded
from model.features import UNKNOWN, Features
from model.masking import MaskedModel, hide
from model.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target

MAX_GRADIENT_NORM = 1.0
MIN_STEPS_PER_EPOCH = 32
UNKNOWN_FRACTION = 0.01
"""Share of categories shown as unknown while training, so that the unknown slot has a meaning."""

History = list[dict[str, float]]


def pretrain(
    features: Features,
    encoded: Encoded,
    network_settings: NetworkSettings,
    settings: PretrainingSettings,
    start: Network | None = None,
) -> tuple[Network, History]:
    """A network without a head that has learnt to fill in what is hidden of a row.

    Begins at `start` (imported weights, say) if it is given. The history has one entry per epoch with the
    loss in units of a blind guess.
    Raises: ValueError when there is no row, FloatingPointError when the loss is no longer finite.
    """
    network = start or Network(network_settings, features.sizes, seed=settings.seed)
    model = MaskedModel(network, settings.seed).to(device())

    def loss(rows: np.ndarray) -> Tensor:
        batch = _to_tensors(encoded, rows, network)
        hidden = hide(batch, network, settings.mask_fraction)
        return model(_forgetful(batch), hidden)

    history: History = []
    with repeatable(settings.seed):
        epochs = _Epochs(model, encoded.lengths, settings, "pretrain")
        for epoch, train_loss in epochs.run(loss):
            history.append({"epoch": epoch, "train_loss": train_loss})
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
) -> tuple[Network, History]:
    """The network with the weights that `settings.keep` names, calibrated on the validation rows, and all losses.

    `on_epoch` is called with each epoch's entry of the history; what it raises ends the training.
    Shapes: y int [n] for binary and multiclass, float [n, C] for multilabel, float [n] for regression.
    Raises: ValueError for no rows or labels that do not fit, FloatingPointError when the loss is not finite.
    """
    if network.target is None or network.sizes != features.sizes:
        raise ValueError(
            "network must have a target and be built for the given features, got another; "
            "use Network.answering or load_pretrained"
        )
    truth_train, truth_val = _truth(network.target, y_train), _truth(network.target, y_val)
    _check_rows(encoded_train, truth_train, "training")
    _check_rows(encoded_val, truth_val, "validation")
    network.to(device())

    def loss(rows: np.ndarray) -> Tensor:
        logits = network(_forgetful(_to_tensors(encoded_train, rows, network)))
        return _loss(network, logits, truth_train[rows], settings.label_smoothing)

    history: History = []
    best, best_loss, best_epoch = copy.deepcopy(network.state_dict()), math.inf, 0.0
    with repeatable(settings.seed):
        for epoch, train_loss in _Epochs(network, encoded_train.lengths, settings, "train").run(loss):
            val_loss = evaluate_loss(network, encoded_val, truth_val, settings.batch_tokens)
            history.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss})
            if on_epoch:
                on_epoch(history[-1])
            if val_loss < best_loss or settings.keep == "last":
                best, best_loss, best_epoch = copy.deepcopy(network.state_dict()), val_loss, epoch
            elif epoch - best_epoch >= settings.patience_epochs:
                break
    network.load_state_dict(best)
    if settings.calibrate:
        calibrate(network.eval(), encoded_val, y_val, settings.batch_tokens)
    return network.cpu().eval(), history


@torch.no_grad()
def evaluate_loss(network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int) -> float:
    """Mean loss per row, without smoothing or dropout. Shapes: truth as `train` prepares it."""
    network.eval()
    total = 0.0
    for rows in batches(encoded.lengths, batch_tokens):
        with autocast(_where(network)):
            logits = network(_to_tensors(encoded, rows, network))
        total += float(_loss(network, logits, truth[rows], 0.0)) * len(rows)
    network.train()
    return total / len(encoded)


class _Epochs:
    """Steps of AdamW with warm-up, linear decay and clipped gradients, epoch by epoch."""

    def __init__(
        self,
        model: nn.Module,
        lengths: np.ndarray,
        settings: PretrainingSettings | TrainingSettings,
        name: str,
    ) -> None:
        if not len(lengths):
            raise ValueError(f"{name} must be given at least one row, got 0; widen the dates")
        self.model, self.lengths, self.settings, self.name = model, lengths, settings, name
        # Few rows still make several steps an epoch; one huge batch would hardly move the weights.
        self.batch_tokens = min(settings.batch_tokens, math.ceil(lengths.sum() / MIN_STEPS_PER_EPOCH))
        self.steps_per_epoch = len(batches(lengths, self.batch_tokens))
        self.n_steps = max(1, round(settings.epochs * self.steps_per_epoch))
        self.optimiser = torch.optim.AdamW(
            _decayed_matrices(model, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)

    def run(self, loss: Callable[[np.ndarray], Tensor]) -> Iterator[tuple[float, float]]:
        """Yields the epochs done so far and the mean loss of the latest."""
        with tqdm(total=self.n_steps, desc=self.name, unit="step") as progress:
            for first in range(0, self.n_steps, self.steps_per_epoch):
                seed = self.settings.seed + first // self.steps_per_epoch
                steps = batches(self.lengths, self.batch_tokens, seed)[: self.n_steps - first]
                losses = [self._step(loss, rows, progress) for rows in steps]
                yield (first + len(steps)) / self.steps_per_epoch, math.fsum(losses) / len(losses)

    def _step(self, loss: Callable[[np.ndarray], Tensor], rows: np.ndarray, progress: "tqdm") -> float:
        self.model.train()
        with autocast(_where(self.model)):
            value = loss(rows)
        number = value.item()
        if not math.isfinite(number):
            raise FloatingPointError(
                f"the loss of {self.name} must stay finite, got {number} at step {progress.n + 1} of "
                f"{self.n_steps}; use a learning_rate below {self.settings.learning_rate:g}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimiser.step()
        self.schedule.step()
        progress.set_postfix(loss=f"{number:.4f}", refresh=False)
        progress.update()
        return number

    def _rate(self, step: int) -> float:
        """Share of the peak rate: up in a line, then down to zero in a line."""
        warmup = max(1, round(self.settings.warmup_fraction * self.n_steps))
        return min((step + 1) / warmup, (self.n_steps - step) / max(1, self.n_steps - warmup))


def _decayed_matrices(model: nn.Module, weight_decay: float) -> list[dict]:
    """Biases, norms and single vectors are left out of weight decay."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def _where(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _to_tensors(encoded: Encoded, rows: np.ndarray, network: Network) -> dict[str, Tensor]:
    where = _where(network)
    batch = collate(encoded, rows, network.sizes.pad_id)
    return {name: torch.from_numpy(array).to(where, non_blocking=True) for name, array in batch.items()}


def _forgetful(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with a few categories made unknown."""
    if "categories" not in batch:
        return batch
    categories = batch["categories"]
    forgotten = (torch.rand(categories.shape) < UNKNOWN_FRACTION).to(categories.device)
    return {**batch, "categories": torch.where(forgotten, UNKNOWN, categories)}


def _truth(target: Target, y: np.ndarray) -> Tensor:
    """Labels as the loss wants them: int64 classes, float32 shares, standardised numbers."""
    if target.task == "multiclass":
        return torch.from_numpy(np.asarray(y).astype(np.int64))
    if target.task == "regression":
        y = (np.asarray(y) - target.mean) / target.deviation
    return torch.from_numpy(np.asarray(y).astype(np.float32))


def _check_rows(encoded: Encoded, truth: Tensor, name: str) -> None:
    if len(encoded) == 0 or len(encoded) != len(truth):
        raise ValueError(
            f"{name} rows must be at least one and each have a label, "
            f"got {len(encoded)} rows and {len(truth)} labels; check the split"
        )
    if not truth.isfinite().all():
        raise ValueError(f"{name} labels must be finite, got NaN; leave rows without a label out")


def _loss(network: Network, logits: Tensor, truth: Tensor, smoothing: float) -> Tensor:
    """Shapes: logits [b, o]; truth [b] or [b, o] -> []."""
    assert network.target is not None
    logits, truth = logits.float(), truth.to(logits.device)
    if network.target.task == "multiclass":
        return F.cross_entropy(logits, truth, label_smoothing=smoothing)
    truth = truth.reshape(logits.shape)
    if network.target.task == "regression":
        return F.mse_loss(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth * (1 - smoothing) + smoothing / 2)
