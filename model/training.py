"""Pretraining by masked modelling and supervised training, on tensors alone.

The same seed on the same machine gives the same weights, bit for bit, also where a training was killed and resumed.
Nothing is written here: files are the caller's, checkpoints are kept by what it hands over.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model import ranks
from model.batches import batches, collate
from model.calibration import calibrate
from model.context import fit_context
from model.device import autocast, device, repeatable
from model.encoded import Encoded
from model.features import UNKNOWN, Features, chosen_rows
from model.masking import MaskedModel, hide
from model.network import INPUTS, Network
from model.probe import fit_probe
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.steps import Checkpoints, History, Steps
from model.target import Target
from model.wide import fit_mix, fit_wide

MAX_PROBED_ROWS = 100_000
"""Rows that a head is fitted to; a sample, where there are more: what the encoder says of them is held in memory."""
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
        batch = _to_tensors(encoded, rows, network)
        batch = {name: batch[name] for name in INPUTS if name in batch}
        hidden = hide(batch, network, settings.mask_fraction)
        mine, weight = ranks.share(len(hidden.columns))
        part = hidden.of(mine)
        value = model({name: column[mine] for name, column in _forgetful(batch).items()}, part)
        return value if ranks.n_ranks() == 1 else value * (weight * part.count / hidden.count)

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
) -> tuple[Network, History]:
    """The network with the weights that `settings.keep` names, calibrated on the validation rows, and all losses.

    With `refit`, what is fitted in closed form (linear model of subwords, head of a probe alone) is fitted at last to
    the validation rows too: they then measure nothing any more. `on_epoch` is called with each epoch's entry of the
    history; what it raises ends the training. `age_days` is how much older each training row is than the newest,
    which `settings.half_life_days` needs.
    Shapes: y int [n] for binary and multiclass, float [n, C] for multilabel, float [n] for regression; age_days [n].
    Raises: ValueError for no rows or labels that do not fit, FloatingPointError when the loss is not finite.
    """
    if network.target is None or network.sizes != features.sizes:
        raise ValueError(
            "network must have a target and be built for the given features, got another; "
            "use Network.answering or load_pretrained"
        )
    if settings.epochs and features.max_windows > 1 and ranks.n_ranks() > 1:
        raise ValueError(
            f"max_windows must be 1 where several processes train, got {features.max_windows}; train in one process"
        )
    truth_train, truth_val = _truth(network.target, y_train), _truth(network.target, y_val)
    _check_rows(encoded_train, truth_train, "training")
    _check_rows(encoded_val, truth_val, "validation")
    _compile(network.to(device()))
    class_weights = balanced(network.target, truth_train) if settings.class_weights == "balanced" else None
    row_weights = faded(age_days, settings.half_life_days)

    def loss(rows: np.ndarray) -> Tensor:
        batch = _forgetful(_to_tensors(encoded_train, rows, network))
        mine, weight = ranks.share(len(rows))
        # Of rows in windows this process, the only one, takes all.
        logits = network(batch if "windows" in batch else {name: column[mine] for name, column in batch.items()})
        its = None if row_weights is None else row_weights[rows[mine]]
        total = _loss(network, logits, truth_train[rows[mine]], settings.label_smoothing, class_weights, its)
        return total * (weight / len(rows))

    def validate() -> float:
        return evaluate_loss(network, encoded_val, truth_val, settings.batch_tokens, class_weights)

    def probe(pooled: Tensor, truth: Tensor, its: Tensor | None) -> float:
        return _fit_probe(network, pooled, truth, settings.label_smoothing, class_weights, its)

    history: History = []
    with repeatable(settings.seed):
        if settings.probe:
            pooled, truth, chosen = _pooled(network, encoded_train, truth_train, settings.batch_tokens)
            train_loss = probe(pooled, truth, None if row_weights is None else row_weights[chosen])
            history = [{"epoch": 0.0, "train_loss": train_loss, "val_loss": validate()}]
        if settings.epochs:
            steps = Steps(network, encoded_train, settings, "train", checkpoints)
            history = steps.run(loss, validate, on_epoch)
            network.load_state_dict(steps.best)
    network.eval()
    if network.wide is not None:
        fit_wide(network.wide, [encoded_train], _outputs(network.target, truth_train), settings.wide_penalty)
        _mix_wide(network, encoded_val, truth_val, settings.batch_tokens)
    if network.context is not None:
        _fit_context(network, encoded_train, truth_train, settings.batch_tokens, class_weights)
    if settings.calibrate:
        calibrate(network, encoded_val, y_val, settings.batch_tokens)
    if not refit:
        return network.cpu().eval(), history
    # All is chosen: the validation rows, too, can now say which words tell, and what the head makes of the encoder.
    if network.wide is not None:
        outputs = _outputs(network.target, torch.cat([truth_train, truth_val]))
        fit_wide(network.wide, [encoded_train, encoded_val], outputs, settings.wide_penalty)
    if not settings.epochs and row_weights is None:
        with repeatable(settings.seed):
            held, truth_held, _ = _pooled(network, encoded_val, truth_val, settings.batch_tokens)
            probe(torch.cat([pooled, held]), torch.cat([truth, truth_held]), None)
    return network.cpu().eval(), history


@torch.no_grad()
def _pooled(network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Of at most MAX_PROBED_ROWS rows what the head reads, float32 [n, d], their truths, and where they stand, [n]."""
    network.eval()
    chosen = chosen_rows(len(encoded), MAX_PROBED_ROWS)
    where = next(network.parameters()).device
    pooled = torch.empty(len(chosen), network.settings.d_model)
    cut = batches(encoded, batch_tokens, chosen=chosen)
    for at in tqdm(cut, desc="probe", unit="batch", disable=ranks.rank() > 0):
        with autocast(where):
            pooled[at] = network.pooled(_to_tensors(encoded, chosen[at], network)).float().cpu()
    return pooled, truth[chosen], chosen


def _fit_probe(
    network: Network,
    pooled: Tensor,
    truth: Tensor,
    smoothing: float,
    class_weights: Tensor | None,
    row_weights: Tensor | None,
) -> float:
    """Fit the head to what it reads; returns the mean loss. Shapes: pooled [n, d]; else as in `_loss`."""
    assert network.head is not None

    def loss(logits: Tensor) -> Tensor:
        return _loss(network, logits, truth, smoothing, class_weights, row_weights)

    fit_probe(network.head, pooled, loss)
    where = next(network.parameters()).device
    with torch.no_grad():
        return float(loss(network.head.eval()(pooled.to(where)))) / len(truth)


def _mix_wide(network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int) -> None:
    """Choose the weights of encoder and linear model on rows that neither was fitted on."""
    assert network.wide is not None
    assert network.target is not None
    deep, flat = torch.empty(2, len(encoded), network.target.n_outputs)
    with torch.inference_mode():
        for rows in batches(encoded, batch_tokens):
            batch = _to_tensors(encoded, rows, network)
            deep[rows] = network.deep(batch).float().cpu()
            flat[rows] = network.wide(batch["bag"], batch["bag_weights"]).cpu()
    fit_mix(network.wide, deep, flat, lambda logits: _loss(network, logits, truth, 0.0))


@torch.inference_mode()
def _fit_context(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None
) -> None:
    """Let the context explain what the rest of the network leaves of the rows that it was fitted on."""
    assert network.context is not None
    assert network.target is not None
    chosen = chosen_rows(len(encoded))
    means = torch.empty(len(chosen), network.target.n_outputs, dtype=torch.float64)
    for at in batches(encoded, batch_tokens, chosen=chosen):
        logits = network(_to_tensors(encoded, chosen[at], network)).double()
        if network.target.task != "regression":
            logits = logits.softmax(-1) if network.target.task == "multiclass" else logits.sigmoid()
        means[at] = logits.cpu()
    outputs = torch.from_numpy(_outputs(network.target, truth[chosen]))
    errors, weights = outputs - means, torch.ones(1, dtype=torch.float64)
    if class_weights is not None:
        many = network.target.task == "multiclass"
        no, yes = (0.0, class_weights) if many else class_weights
        weights = torch.where(outputs > 0.5, yes, no).double()
        weights = weights.sum(1, keepdim=True) if many else weights
    match network.target.task:
        case "regression":
            weights = 1 / errors.square().mean().clamp(min=torch.finfo(torch.float32).tiny)
            slopes = torch.ones_like(means)
        case "multiclass":
            slopes = means  # not means * (1 - means): what one class gains the others lose, all in one move
        case _:
            slopes = means * (1 - means)
    fit_context(network.context, encoded.context[chosen], (weights * errors).numpy(), (weights * slopes).numpy())


def _outputs(target: Target, truth: Tensor) -> np.ndarray:
    """What a regression should answer to every row. Shapes: truth as `_truth` makes it -> float64 [n, o]."""
    if target.task == "multiclass":
        truth = F.one_hot(truth, target.n_outputs)
    return truth.reshape(len(truth), target.n_outputs).double().numpy()


@torch.no_grad()
def evaluate_loss(
    network: Network, encoded: Encoded, truth: Tensor, batch_tokens: int, class_weights: Tensor | None = None
) -> float:
    """Mean loss per row, without smoothing or dropout. Shapes: truth as `train` prepares it."""
    network.eval()
    where = next(network.parameters()).device
    total = torch.zeros((), dtype=torch.float64)
    for rows in batches(encoded, batch_tokens)[ranks.rank() :: ranks.n_ranks()]:
        with autocast(where):
            logits = network(_to_tensors(encoded, rows, network))
        total += _loss(network, logits, truth[rows], 0.0, class_weights).double().cpu()
    network.train()
    total = total.to(where)
    ranks.sum_in_place([total])
    return float(total) / len(encoded)


def balanced(target: Target, truth: Tensor) -> Tensor | None:
    """Weights under which every class, or each label's yes and no, weighs as much; their mean over the rows is 1.

    Shapes: truth as `train` prepares it; returns [C] for multiclass, [2, o] (no, yes) for binary and multilabel, None
    for regression.
    """
    if target.task == "regression":
        return None
    if target.task == "multiclass":
        counts = torch.bincount(truth, minlength=target.n_outputs)
    else:
        yes = (truth.reshape(len(truth), -1) > 0.5).sum(0)
        counts = torch.stack([len(truth) - yes, yes])
    return len(truth) / (len(counts) * counts.clamp(min=1).float())


def faded(age_days: np.ndarray | None, half_life_days: float) -> Tensor | None:
    """What each row weighs in the loss, 1 in the mean; None where all weigh the same. Shapes: [n] -> float32 [n].

    Raises: ValueError where rows are to weigh by their age, and that is not given.
    """
    if not half_life_days:
        return None
    if age_days is None:
        raise ValueError("age_days must be given for half_life_days, got None; set half_life_days: 0")
    weights = 0.5 ** (np.asarray(age_days, np.float64) / half_life_days)
    return torch.from_numpy((weights / weights.mean()).astype(np.float32))


def _compile(network: Network) -> None:
    """Fuse what a GPU does in a block; all blocks are alike, so one is compiled for all."""
    if next(network.parameters()).is_cuda:
        for block in network.encoder.layer:
            block.compile(dynamic=True)


def _to_tensors(encoded: Encoded, rows: np.ndarray, network: Network) -> dict[str, Tensor]:
    where = next(network.parameters()).device
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


def _loss(
    network: Network,
    logits: Tensor,
    truth: Tensor,
    smoothing: float,
    class_weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Summed over the rows, of each row the mean over its outputs.

    Shapes: logits [b, o]; truth [b] or [b, o]; class_weights as of `balanced`; row_weights [b]; returns [].
    """
    assert network.target is not None
    logits, truth = logits.float(), truth.to(logits.device)
    weights = None if class_weights is None else class_weights.to(logits.device)
    if network.target.task == "multiclass":
        each = F.cross_entropy(logits, truth, weight=weights, label_smoothing=smoothing, reduction="none")
    else:
        truth = truth.reshape(logits.shape)
        if network.target.task == "regression":
            each = F.mse_loss(logits, truth, reduction="none")
        else:
            element = None if weights is None else torch.where(truth > 0.5, weights[1], weights[0])
            smooth = truth * (1 - smoothing) + smoothing / 2
            each = F.binary_cross_entropy_with_logits(logits, smooth, weight=element, reduction="none")
        each = each.mean(1)
    return each.sum() if row_weights is None else each @ row_weights.to(logits.device)
