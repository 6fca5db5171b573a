"""The steps of a training: AdamW with warm-up, linear decay and clipped gradients, epoch by epoch.

Everything random in a step follows from the seed and the step's number, so a training that was killed resumes from
its weights, its optimiser and a number, and ends with the bytes it would have had. The caller says where that state is
kept (see `Checkpoints`), and what is minimised: a function from row numbers to a loss.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol, TypedDict, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from model.compute import distributed
from model.compute.device import autocast, deterministic
from model.features.encoded import Encoded
from model.network.network import Network
from model.settings import PATIENT_EPOCHS, PATIENT_STEPS, OptimisationSettings
from model.training.steps import epoch_batches, seed_step, steps_within

MAX_GRADIENT_NORM = 1.0
LITTLE_WORK = 5e7
"""Tokens of a step times weights, up to which a CPU hardly computes; mixed precision then costs more than it saves."""
STEPS_BETWEEN_SYNCS = {"cpu": 1, "cuda": 16}
"""Steps after which the losses are read; on a GPU each reading waits for it."""

History = list[dict[str, float]]
Loss = Callable[[np.ndarray], Tensor]
"""Row numbers of a batch to this process's part of its mean loss."""


class Notes(TypedDict):
    """The part of a training's state that is no tensor."""

    step: int
    """Steps that were taken."""
    n_steps: int
    """Steps that will be taken: decided once, also where a clock had a part in it."""
    history: History
    """Entries of the epochs that ended."""


class Checkpoints(Protocol):
    """Storage of a training's state."""

    every_seconds: float
    """Least time between two checkpoints."""

    def load_newest(self) -> tuple[dict[str, Tensor], Notes] | None:
        """Return tensors and notes of the last state that was kept whole, if any."""

    def save(self, step: int, tensors: dict[str, Tensor], notes: Notes) -> None:
        """Keep a state, whole or not at all."""

    def nested(self, name: str) -> "Checkpoints":
        """Return the storage of another training that belongs to this one."""


class Course(TypedDict, total=False):
    """What a training goes by beside its rows and settings."""

    name: str
    """Of the stage; train where none is given."""
    seconds: float | None
    """What all steps together may take on this machine."""
    on_planned: Callable[[float], None] | None
    """Gets the epochs that the steps which fit into `seconds` make: declared they are the same training again."""
    on_epoch: Callable[[dict[str, float]], None] | None
    """Gets each entry of the history; what it raises ends the training."""
    checkpoints: Checkpoints | None


class Optimisation:
    """A model and its optimiser, on their way through the steps."""

    def __init__(
        self,
        model: nn.Module,
        encoded: Encoded,
        settings: OptimisationSettings,
        name: str,
        checkpoints: Checkpoints | None = None,
        seconds: float | None = None,
    ) -> None:
        """Set up the optimiser; `seconds` is what all steps together may take on this machine.

        Raises: ValueError when there is no row.
        """
        if not len(encoded):
            raise ValueError(f"{name} must be given at least one row, got 0; widen the dates")
        self.model, self.encoded, self.settings, self.name = model, encoded, settings, name
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.device = self.weights[0].device
        self.little_tokens = int(LITTLE_WORK / sum(weight.numel() for weight in self.weights))
        first = self._batches(0)
        self.is_mixed = any(encoded.n_tokens[rows].sum() > self.little_tokens for rows in first)
        self.steps_per_epoch = len(first)
        self.n_steps = max(1, round(settings.epochs * self.steps_per_epoch))
        self.optimiser = torch.optim.AdamW(
            _decayed_matrices(self.weights, settings.weight_decay), lr=0.0, betas=(0.9, 0.98), fused=True
        )
        self.l1, self.ema_decay = settings.l1, settings.ema_decay
        self.average = [weight.detach().clone() for weight in self.weights] if self.ema_decay else []
        self.keeps_last = settings.keep == "last"
        patient = min(PATIENT_STEPS, PATIENT_EPOCHS * self.steps_per_epoch)
        self.patience_steps = settings.patience_steps or max(patient, 2 * self.steps_per_epoch, self.n_steps // 4)
        self.checkpoints, self.saved_at, self.seconds = checkpoints, time.monotonic(), seconds
        self.step = 0
        self.losses: list[float] = []
        self.pending_losses: list[Tensor] = []
        self.history: History = []
        self.best: dict[str, Tensor] = {}

    def run(
        self,
        loss: Loss,
        validate: Callable[[], float] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        until: float = math.inf,
    ) -> History:
        """Take every step that is left, or those to epoch `until`, or until `validate` was long no better.

        `best` then holds the weights that `settings.keep` names, the best only with `validate`; `on_epoch` sees each
        entry, and may raise to stop.
        Raises: FloatingPointError when the loss is no longer finite.
        """
        if not self._resume() and self.seconds is not None:
            self._keep_to(self.seconds, loss, validate)
        quiet = distributed.rank() > 0
        with tqdm(total=self.n_steps, initial=self.step, desc=self.name, unit="step", disable=quiet) as progress:
            while self.step < min(self.n_steps, until * self.steps_per_epoch) and not self._out_of_patience():
                self._epoch(loss, progress)
                self._close_epoch(validate)
                if self.step < self.n_steps:
                    self._save()
                if on_epoch is not None:
                    on_epoch(self.history[-1])
        return self.history

    @property
    def epochs(self) -> float:
        """Return the passes over the rows that all steps make: declared as `epochs` they are as many steps again."""
        return self.n_steps / self.steps_per_epoch

    def _keep_to(self, seconds: float, loss: Loss, validate: Callable[[], float] | None) -> None:
        """Take fewer steps where all would take longer than `seconds`."""

        def try_step(number: int, rows: np.ndarray) -> None:
            self.model.train()
            seed_step(self.settings.seed, number)
            with autocast(self.device) if self.is_mixed else nullcontext():
                value = loss(rows)
            value.backward()
            float(value.detach())  # waits for a GPU
            self.optimiser.zero_grad(set_to_none=True)

        steps, compiles = self._batches(0), self.device.type == "cuda"
        fits = steps_within(seconds, try_step, steps, self.encoded.n_tokens, validate, compiles=compiles)
        decided = torch.tensor(float(fits if distributed.rank() == 0 else 0), dtype=torch.float64, device=self.device)
        distributed.all_reduce_sum([decided])  # of several processes the first one's clock counts
        if decided < self.n_steps:
            line = f"{self.name}: {int(decided):,} of {self.n_steps:,} steps fit into {seconds / 60:.1f} minutes"
            self.n_steps = int(decided)
            print(f"{line}, which are {self.epochs:.6g} epochs", flush=True)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        return epoch_batches(self.encoded, self.settings, epoch, self.little_tokens)

    def _epoch(self, loss: Loss, progress: "tqdm") -> None:
        """Take the steps that are left of the current epoch."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        steps = self._batches(epoch)
        left = steps[done : self.n_steps - epoch * self.steps_per_epoch]
        for number, rows in enumerate(left, start=1):
            self._step(loss, rows)
            progress.set_postfix(loss=f"{self.losses[-1] if self.losses else math.nan:.4f}", refresh=False)
            progress.update()
            # After an epoch's last step it must be closed first.
            if number < len(left) and self._is_due():
                self._save()
        self.sync_losses()

    def _step(self, loss: Loss, rows: np.ndarray) -> None:
        self.model.train()
        seed_step(self.settings.seed, self.step)
        with autocast(self.device) if self.is_mixed else nullcontext():
            value = loss(rows)
        value.backward()
        total = value.detach().float()
        distributed.all_reduce_sum([total, *(weight.grad for weight in self.weights if weight.grad is not None)])
        nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT_NORM)
        rate = self.settings.learning_rate * self._learning_rate_share()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.apply_l1(rate)
        self.update_ema()
        self.pending_losses.append(total)
        if len(self.pending_losses) >= STEPS_BETWEEN_SYNCS[self.device.type]:
            self.sync_losses()

    def _learning_rate_share(self) -> float:
        """Return the share of the peak rate: up in a line, then down to zero in a line."""
        warmup = max(1, round(self.settings.warmup_fraction * self.n_steps))
        return min((self.step + 1) / warmup, (self.n_steps - self.step) / max(1, self.n_steps - warmup))

    @torch.no_grad()
    def apply_l1(self, rate: float) -> None:
        """Move every element of every matrix by `rate * l1` towards zero, and not beyond."""
        if self.l1:
            for weight in self.weights:
                if weight.ndim > 1:
                    weight.copy_(F.softshrink(weight, rate * self.l1))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the average of the weights a step towards them; faster at first, when few have gone into it."""
        if self.average:
            decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, list(self.weights), 1 - decay)

    def sync_losses(self) -> None:
        """Read the losses of the latest steps, which waits for a GPU.

        Raises: FloatingPointError for one that is not finite.
        """
        for number in torch.stack(self.pending_losses).tolist() if self.pending_losses else []:
            self.losses.append(number)
            if not math.isfinite(number):
                epoch = (self.step - 1) // self.steps_per_epoch
                raise FloatingPointError(
                    f"the loss of {self.name} must stay finite, got {number} at step "
                    f"{epoch * self.steps_per_epoch + len(self.losses)} of {self.n_steps}; "
                    f"use a learning_rate below {self.settings.learning_rate:g}"
                )
        self.pending_losses = []

    def _close_epoch(self, validate: Callable[[], float] | None) -> None:
        entry = {"epoch": self.step / self.steps_per_epoch, "train_loss": math.fsum(self.losses) / len(self.losses)}
        self.losses = []
        with self._averaged():
            if validate is not None:
                entry["val_loss"] = validate()
                if not math.isfinite(entry["val_loss"]):
                    raise FloatingPointError(
                        f"the validation loss of {self.name} must stay finite, got {entry['val_loss']} after epoch "
                        f"{entry['epoch']:g}; use a learning_rate below {self.settings.learning_rate:g}"
                    )
            if self.keeps_last or (
                validate is not None and all(entry["val_loss"] < before["val_loss"] for before in self.history)
            ):
                self.best = {name: weight.detach().clone() for name, weight in self.model.state_dict().items()}
        self.history.append(entry)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Give the model the averaged weights, if an average is kept, inside of the context."""
        own = [weight.detach().clone() for weight in self.weights] if self.average else []
        _assign(self.weights, self.average)
        try:
            yield
        finally:
            _assign(self.weights, own)

    def _out_of_patience(self) -> bool:
        if self.settings.keep != "best" or not self.history:
            return False
        best = min(self.history, key=lambda entry: entry["val_loss"])
        return round((self.history[-1]["epoch"] - best["epoch"]) * self.steps_per_epoch) >= self.patience_steps

    def _is_due(self) -> bool:
        return self.checkpoints is not None and time.monotonic() - self.saved_at >= self.checkpoints.every_seconds

    def _save(self) -> None:
        if self.checkpoints is None or distributed.rank() > 0:
            return
        self.sync_losses()
        tensors = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        tensors |= {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        tensors |= {f"best.{name}": weight for name, weight in self.best.items()}
        tensors |= {f"average.{number}": weight for number, weight in enumerate(self.average)}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in state.items()}
        self.checkpoints.save(self.step, tensors, {"step": self.step, "n_steps": self.n_steps, "history": self.history})
        self.saved_at = time.monotonic()

    def _resume(self) -> bool:
        """Go on from the newest checkpoint, if any; where the processes found different ones, from the start."""
        found = self.checkpoints.load_newest() if self.checkpoints else None
        step = found[1]["step"] if found else 0
        if not distributed.all_equal(step) or found is None:
            return False
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "average": {}, "optimiser": {}}
        losses = found[0].pop("losses")
        for name, tensor in found[0].items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor.to(self.device, copy=True)
        self.model.load_state_dict(parts["model"])
        self.best = parts["best"]
        self.average = [parts["average"][str(number)] for number in range(len(self.average))]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.step, self.losses, self.history = step, losses.tolist(), found[1]["history"]
        self.n_steps = found[1]["n_steps"]
        print(f"{self.name}: resumed at step {self.step} of {self.n_steps}", flush=True)
        return True


def optimised(
    network: Network,
    encoded: Encoded,
    plan: OptimisationSettings,
    loss: Loss,
    validate: Callable[[], float],
    **course: Unpack[Course],
) -> tuple[Network, History]:
    """Return the network with the weights that `plan.keep` names of all steps, on the CPU, and the losses."""
    with deterministic(plan.seed):
        name, checkpoints, seconds = course.get("name", "train"), course.get("checkpoints"), course.get("seconds")
        optimisation = Optimisation(network, encoded, plan, name, checkpoints, seconds)
        history = optimisation.run(loss, validate, course.get("on_epoch"))
        network.load_state_dict(optimisation.best)
    if (on_planned := course.get("on_planned")) is not None:
        on_planned(optimisation.epochs)
    return network.cpu().eval(), history


def _assign(weights: list[nn.Parameter], values: list[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=False):
            weight.copy_(value)


def _decayed_matrices(weights: list[nn.Parameter], weight_decay: float) -> list[dict]:
    """Return the groups of AdamW: matrices decay, vectors do not; the vectors of several columns are one matrix."""
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
