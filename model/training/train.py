"""Pretraining by masked modelling and supervised training, on tensors alone.

The same seed on the same machine gives the same weights, bit for bit, also where a training was killed and resumed.
Nothing is written here: files are the caller's, checkpoints are kept by what it hands over.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from model.compute import distributed
from model.compute.device import deterministic, device
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import MAX_FOLDED_ROWS
from model.network.network import Network
from model.settings import NetworkSettings, PretrainingSettings, TrainingPlan, TrainingSettings
from model.training.calibration import (
    calibrate,
    calibrate_quantiles,
    calibrated,
    calibration_after_refit,
    correct_point,
)
from model.training.closed_forms.probe import PRIOR_WEIGHT
from model.training.companion import can_have_companion, fold_numbers
from model.training.fit import Fit, LabelledRows, checked_labels, compile_blocks
from model.training.inference import encode_once, evaluate_loss, predict_in_batches
from model.training.masking import MaskedModel, disturb, hide, tokens_of
from model.training.optimisation import Checkpoints, History, Optimisation

MAX_FOLDED_TOKENS = MAX_FOLDED_LABELS = 60_000
"""Up to so many of each, and to MAX_FOLDED_ROWS, trainings on folds are short, and validation rows alone say little."""
MORE_EPOCHS, MORE_RATE = 8.0, 0.1
"""Epochs at most, and share of the rate, with which kept weights learn on when the validation rows have joined."""
N_FOLDS = 3
"""Each takes nearly as long as the training itself."""


def pretrain(
    features: Features,
    encoded: Encoded,
    network_settings: NetworkSettings,
    settings: PretrainingSettings,
    start: Network | None = None,
    checkpoints: Checkpoints | None = None,
    seconds: float | None = None,
    on_planned: Callable[[float], None] | None = None,
) -> tuple[Network, History]:
    """Return a network without a head that has learnt to fill in what is hidden of a row.

    Begins at `start` (imported weights, say) if it is given; `seconds` and `on_planned` as of `train`. The history
    has one entry per epoch with the loss in units of a blind guess.
    Raises: ValueError when there is no row, FloatingPointError when the loss is no longer finite.
    """
    network = start or Network(network_settings, features.sizes, seed=settings.seed)
    model = MaskedModel(network, settings.seed).to(device())
    compile_blocks(network)

    def loss(rows: np.ndarray) -> Tensor:
        # Each window of a row is guessed by itself.
        batch = disturb(tokens_of(network.batch_of(encoded, rows)), features.sizes, settings)
        hidden = hide(batch, network, settings.mask_fraction)
        with distributed.shard_batch(batch) as shard:
            hidden_part = hidden.of(shard.rows)
            value = model(shard.batch, hidden_part)
        return value if distributed.n_ranks() == 1 else value * (shard.weight * hidden_part.count / hidden.count)

    with deterministic(settings.seed):
        optimisation = Optimisation(model, encoded, settings, "pretrain", checkpoints, seconds)
        history = optimisation.run(loss)
    if on_planned is not None:
        on_planned(optimisation.epochs)
    return network.cpu().eval(), history


def kept_entry(history: History, keep: str) -> dict[str, float]:
    """Return the entry of the epoch whose weights `settings.keep` names."""
    return history[-1] if keep == "last" else min(history, key=lambda entry: entry["val_loss"])


def train(
    network: Network,
    features: Features,
    rows: LabelledRows,
    validation: LabelledRows,
    settings: TrainingSettings,
    *,
    seconds: float | None = None,
    on_planned: Callable[[float], None] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    checkpoints: Checkpoints | None = None,
    on_calibrated: Callable[[Network, Encoded], None] | None = None,
    refit: bool = True,
    companion: bool = False,
) -> tuple[Network, History]:
    """Return the network with the weights that `settings.keep` names, calibrated on the validation rows, and losses.

    With `refit`, what is fitted in closed form is fitted at last to the validation rows too: they then measure nothing
    any more. `settings.refit`, a second training with them, is the caller's to ask for, by `train_again`. With
    `companion`, trees and a line of the columns score beside it. Of steps that would take longer than `seconds` fewer
    are taken; `on_planned` gets the epochs that they make, which declared are the same training again; `on_epoch` each
    entry of the history (what it raises ends the training), `on_calibrated` network and still unseen validation rows.
    Raises: ValueError for no rows or labels that do not fit, FloatingPointError when the loss is not finite.
    """
    start = deepcopy(network) if companion and is_trained_by_folds(network, rows, validation) else None
    # Each fold is trained on the other folds: together as long as N_FOLDS - 1 trainings.
    seconds = seconds if seconds is None or start is None else seconds / N_FOLDS
    plan = settings.for_rows(int(rows.encoded.n_tokens.sum()))
    fit = Fit(network, features, rows, plan, companion)
    encoded_val, labels_val = validation.encoded, checked_labels(network, validation, "validation")
    is_probe_alone = plan.probe and not plan.epochs

    def validate() -> float:
        return evaluate_loss(network, encoded_val, labels_val, plan.batch_tokens, fit.class_weights, doubts=True)

    history: History = []
    with deterministic(plan.seed):
        if plan.probe:
            pooled, chosen = fit.encode_once()
            unseen_val, pooled_val, chosen_val = encode_once(network, encoded_val, plan.batch_tokens)
            if is_probe_alone:  # what the encoder says of a row is the same from here on
                encoded_val = unseen_val
            fit.choose_strength(pooled, chosen, pooled_val, labels_val[chosen_val])
            history = [{"epoch": 0.0, "train_loss": fit.fit_head(pooled, chosen), "val_loss": validate()}]
        if plan.epochs:
            history, epochs = _train_lengths(fit, checkpoints, validate, on_epoch, on_planned, seconds)
            plan = replace(plan, epochs=epochs, lengths=())  # what time allowed, and validation favours
        unseen = replace(validation, encoded=encoded_val)
        until = kept_entry(history, plan.keep)["epoch"]
        rows = replace(rows, encoded=fit.parts[0])  # with what the encoder says of them, where that stays the same
        deep = None if start is None else train_by_folds(start, features, rows, unseen, plan, fit.strength, until)
        judged = fit.fit_beside_encoder(unseen, labels_val, deep)
        _calibrate(network, unseen, plan, judged, on_calibrated)
        if refit:
            # All is chosen: the validation rows, too, can say which words tell, and how the head reads the encoder.
            fit.add_and_fit_beside(encoded_val, labels_val)
            if is_probe_alone and fit.row_weights is None:
                chosen = np.concatenate([chosen, len(rows.encoded) + chosen_val])
                fit.fit_head(torch.cat([pooled, pooled_val]), chosen)
    return network.cpu().eval(), history


def _calibrate(
    network: Network,
    unseen: LabelledRows,
    plan: TrainingPlan,
    judged: tuple[Tensor, np.ndarray] | None,
    on_calibrated: Callable[[Network, Encoded], None] | None,
) -> None:
    """Let scores come true on rows that nothing was fitted to: means or medians; probabilities and quantiles if asked.

    Probabilities by the rows `judged`, what is said of them and their labels, where there are such: they are many more
    than the validation rows, by the few of which a sure blend would be made unsure.
    """
    correct_point(network, unseen.encoded, unseen.y, plan.batch_tokens, unseen.n_later_days)
    assert network.target is not None
    if plan.calibrate and network.target.levels:
        calibrate_quantiles(network, unseen.encoded, unseen.y, plan.batch_tokens, judged, unseen.n_later_days)
    elif plan.calibrate and judged is not None and network.target.head.has_probabilities:
        network.target = calibrated(network.target, *judged)
    elif plan.calibrate:
        calibrate(network, unseen.encoded, unseen.y, plan.batch_tokens, unseen.n_later_days)
    if on_calibrated is not None:
        on_calibrated(network, unseen.encoded)


def _train_lengths(
    fit: Fit,
    checkpoints: Checkpoints | None,
    validate: Callable[[], float],
    on_epoch: Callable[[dict[str, float]], None] | None,
    on_planned: Callable[[float], None] | None,
    seconds: float | None,
) -> tuple[History, float]:
    """Train for as long as each of the plan's lengths says, from the same start, and keep the best by validation.

    Leaves the network with these weights. Returns as `Fit.run_optimiser`.
    """
    lengths, start = (*fit.settings.lengths, fit.settings.epochs), _copy(fit.network)
    least, best, weights = math.inf, ([dict[str, float]()], 0.0), start
    for number, epochs in enumerate(lengths):
        fit.network.load_state_dict(start)
        is_last = number == len(lengths) - 1
        state = checkpoints if is_last or checkpoints is None else checkpoints.nested(f"{epochs:g}")
        share = None if seconds is None else seconds * epochs / sum(lengths)
        found = fit.run_optimiser("train", state, validate, on_epoch, epochs=epochs, seconds=share)
        loss = min(entry["val_loss"] for entry in found[0])
        if loss >= least:  # and so would one be that is longer still
            break
        least, best, weights = loss, found, _copy(fit.network)
    fit.network.load_state_dict(weights)
    if on_planned is not None:
        on_planned(best[1])
    return best


def _copy(network: Network) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}


def is_trained_by_folds(network: Network, rows: LabelledRows, validation: LabelledRows) -> bool:
    """Return whether the rows are so few that trainings without some of them tell more than the validation rows do.

    Later days are never among them: what is known of the next days must be learnt from days before.
    """
    target, n_rows = network.target, len(rows.encoded)
    assert target is not None
    has_parts = can_have_companion(network) or (target.head.has_companion and network.wide is not None)
    if not has_parts or validation.n_later_days is not None or not 1 < n_rows <= MAX_FOLDED_ROWS:
        return False
    return n_rows * target.n_outputs <= MAX_FOLDED_LABELS and rows.encoded.n_tokens.sum() <= MAX_FOLDED_TOKENS


def train_by_folds(
    start: Network,
    features: Features,
    rows: LabelledRows,
    validation: LabelledRows,
    plan: TrainingPlan,
    strength: float = PRIOR_WEIGHT,
    until: float = math.inf,
) -> Tensor:
    """Return what the encoder says of each row when trained, from `start`, on the other folds of the rows.

    The validation rows say when to stop, as they do where it is trained on all rows, at the latest at epoch `until`:
    that of the weights that were kept there. `strength` is that of a probe.
    Shapes: returns float32 [n, o].
    """
    n_rows = len(rows.encoded)
    n_folds = min(n_rows, N_FOLDS)
    fold = fold_numbers(n_rows, n_folds, plan.seed)
    labels = checked_labels(start, validation, "validation")
    answers = torch.empty(0)
    for number in range(n_folds):
        network, held = deepcopy(start), np.flatnonzero(fold == number)
        fit = Fit(network, features, rows.take(np.flatnonzero(fold != number)), plan)
        if plan.probe:
            fit.strength = strength
            fit.fit_head(*fit.encode_once())
        if plan.epochs:
            unseen = (validation.encoded, labels, plan.batch_tokens, fit.class_weights)
            validate = partial(evaluate_loss, network, *unseen, doubts=True)
            fit.run_optimiser(f"fold {number + 1} of {n_folds}", None, validate, until=until)
        network.eval()
        found = predict_in_batches(network, network.deep, rows.encoded, plan.batch_tokens, held)
        answers = answers if answers.numel() else torch.empty(n_rows, found.shape[1])
        answers[held] = found
    return answers


def train_again(
    first: Network,
    network: Network,
    features: Features,
    rows: LabelledRows,
    settings: TrainingSettings,
    *,
    checkpoints: Checkpoints | None = None,
    n_later_days: int | None = None,
) -> tuple[Network, History]:
    """Return the network of a second training, on training and validation rows together.

    With `settings.keep` last it begins as the first did, at `network`, and is as long. With best, nothing is unseen any
    more by which an epoch were chosen: then the weights that were kept learn on, for few epochs at a low rate.
    What `first`, the first training's network, found on the validation rows while they were unseen is taken over:
    the blend with what lies beside the encoder, and the calibration, as
    `model.training.calibration.calibration_after_refit` says, which needs the validation rows' `n_later_days`. The
    history has no validation loss.
    Raises: as `train`.
    """
    plan = replace(settings.for_rows(int(rows.encoded.n_tokens.sum())), keep="last")
    if goes_on := settings.keep == "best":
        # Parameters alone: what is fitted in closed form is fitted anew below.
        network.load_state_dict(dict(first.named_parameters()), strict=False)
        plan = replace(plan, epochs=min(plan.epochs, MORE_EPOCHS), learning_rate=plan.learning_rate * MORE_RATE)
    fit = Fit(network, features, rows, plan, first.companion is not None)
    with deterministic(plan.seed):
        if plan.probe and not goes_on:
            fit.fit_head(*fit.encode_once())
        history, _ = fit.run_optimiser("train again", checkpoints)
        fit.fit_linear()
        if network.wide is not None and first.wide is not None:
            network.wide.mix.copy_(first.wide.mix)
        fit.fit_context()
        network.companion = first.companion
        fit.fit_companion()
        fit.weigh_context()
        assert first.target is not None
        network.target = calibration_after_refit(first.target, n_later_days)
    return network.cpu().eval(), history
