"""Fine-tune the starting weights on the labelled training rows, or fit a head to them alone.

The validation rows say when to stop.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, write_history, write_json
from tasks.runtime.paths import Paths
from tasks.training import code
from tasks.training.checkpoints import PLAN, CheckpointFolder, checkpoints
from tasks.training.held_out.unseen import Unseen
from tasks.training.target_scale import target_scale

if TYPE_CHECKING:
    from model.features.answers.occurrences import SpanLabels
    from model.features.encoded import Encoded
    from model.features.fitted import Features
    from model.network.network import Network
    from model.settings import TrainingPlan
    from model.target import Target

    Trained = tuple[Network, Features, "History", TrainingPlan]

N_VALIDATED_ROWS = 128
"""Validation rows of a language model."""
History = list[dict[str, float]]
"""One entry per epoch."""
OnEpoch = Callable[[dict[str, float]], None]
"""Called with each epoch's entry of the history; what it raises ends the training."""


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """How a model was fine-tuned."""

    n_train: int
    """Training rows."""
    n_val: int
    """Validation rows."""
    epochs: float
    """Passes over the training rows that were planned."""
    learning_rate: float
    """Peak of the schedule."""
    history: History
    """Losses on both."""
    kept: dict[str, float] | None
    """The entry of the history whose weights were kept; None where the head alone was fitted."""
    blend: dict[str, float]
    """The weight of each part that scores; none where nothing stands beside the Transformer."""
    about_scale: str
    """As of `Parts`."""
    refitted: bool
    """Whether it was trained once more, with the validation rows."""

    @property
    def summary(self) -> str:
        """Return the line that the stage prints."""
        result, last = "fitted the head alone", self.history[-1]
        if self.kept:
            result = f"kept the weights of epoch {self.kept['epoch']:.4g} of {last['epoch']:.4g}"
            result += f" ({self.epochs:.4g} were planned, rate {self.learning_rate:g})"
        refit = f", then trained once more with the {self.n_val:,} validation rows" if self.refitted else ""
        loss = (self.kept or last)["val_loss"]
        blend = ", ".join(f"{part} {weight:.2f}" for part, weight in self.blend.items())
        scores = f"; what scores: {blend}" if blend else ""
        scale = f"; {self.about_scale}" if self.about_scale else ""
        return f"{self.n_train:,} rows; {result}, validation loss {loss:.4f}{refit}{scores}{scale}"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a split that a training reads: rows to learn from, and rows to stop and calibrate by."""

    train: SplitPart
    val: SplitPart
    y_train: np.ndarray
    y_val: np.ndarray
    target: "Target"
    about_scale: str = ""
    """On which scale a number is learnt, and what was measured for that; empty where nothing was."""

    @classmethod
    def read(cls, product: Product, splits: Path) -> "Parts":
        """Read the labels of both parts. Raises UserError where a target cannot be fitted to them."""
        from model.target import Target

        train, val = (model_inputs.split_part(splits, name, product) for name in ("train", "val"))
        classes = model_inputs.classes(train.labels, product)
        y_train = model_inputs.targets(train.labels, product, classes)
        # A class that only the validation rows hold cannot be learnt, and would have no index.
        val, y_val = val.with_known_labels(classes)
        scale, about_scale = target_scale(product, train, y_train)
        try:
            target = Target.fit(product.target.task, classes, y_train, product.target.name, scale)
            target = model_inputs.as_declared(target, product)
        except ValueError as error:
            raise UserError(f"products.{product.name}: {error}") from None
        return cls(train=train, val=val, y_train=y_train, y_val=y_val, target=target, about_scale=about_scale)


def fine_tune(product: Product, paths: Paths, on_epoch: OnEpoch | None = None, refit: bool = True) -> FineTuned:
    """Read the splits and starting weights below `paths`, write the trained model and the history of its losses there.

    `on_epoch`, `refit`: see `model.training.train`. Raises UserError when training diverges.
    """
    from model.compute import distributed
    from model.network.store import save_model
    from model.training.train import kept_entry

    parts = Parts.read(product, paths.splits)
    unseen = Unseen(parts.target, parts.val, parts.y_val)
    data = [paths.splits / "train.parquet", paths.splits / "val.parquet", paths.pretrained]
    with distributed.together(), checkpoints("train", product, data, code.FINE_TUNING) as state:
        training = _Training(
            product=product, paths=paths, parts=parts, unseen=unseen, state=state, on_epoch=on_epoch, refit=refit
        )
        try:
            network, features, history, plan = training.run()
        except FloatingPointError as error:
            raise UserError(f"params.yaml: products.{product.name}.model.train: {error}") from None
        if distributed.rank() == 0:
            with atomic_folder(paths.trained) as folder:
                save_model(folder, network, features)
                write_json(folder / PLAN, asdict(plan))
                unseen.save(folder)
            write_history(paths.report("training.csv"), history, ["epoch", "train_loss", "val_loss"])
    return FineTuned(
        n_train=len(parts.y_train),
        n_val=len(parts.y_val),
        epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        history=history,
        kept=kept_entry(history, plan.keep) if plan.epochs else None,
        blend=network.blend,
        about_scale=parts.about_scale,
        refitted=plan.refit,
    )


@dataclass(frozen=True, kw_only=True)
class _Training:
    """One training, by the way that is right for what is predicted."""

    product: Product
    paths: Paths
    parts: Parts
    unseen: Unseen
    """Takes what the model says of validation rows."""
    state: CheckpointFolder
    on_epoch: OnEpoch | None
    refit: bool

    def run(self) -> "Trained":
        """Train from the starting weights."""
        head = self.parts.target.head
        if head.writes_texts:
            return self._learn_labels()
        if head.answers_spans:
            return self._learn_spans()
        return self._learn() if head.has_labels else self._fill()

    def _start(self, target: "Target | None" = None) -> "tuple[Network, Features]":
        """Return the starting weights with a head for the target, that of the parts where none is given."""
        from model.network.store import load_pretrained

        model, target = self.product.model, target or self.parts.target
        return load_pretrained(self.paths.pretrained, target, model.network_settings(), seed=model.train.seed)

    def _encoded(self, features: "Features", part: SplitPart) -> "Encoded":
        from model.features.encoded import on_disk

        return on_disk(map(features.encode, part), self.paths.splits)

    def _learn(self) -> "Trained":
        """Train to predict labels that are classes, numbers or items; if it is so set, on the validation rows too."""
        from model.features.encoded import on_disk
        from model.training.fit import LabelledRows
        from model.training.train import train, train_again

        model, parts, by_time = self.product.model, self.parts, self.product.split.by == "time"
        n_later_days = parts.val.n_days if by_time else None
        settings = model.train.with_refit(len(parts.y_train), by_time=by_time)
        if not self.refit:
            settings = replace(settings, refit=False)

        def ages(*of: SplitPart) -> np.ndarray | None:
            if not settings.half_life_days:  # a product without time has none
                return None
            return model_inputs.age_days(np.concatenate([each.times for each in of]))

        network, features = self._start()
        encoded = [self._encoded(features, part) for part in (parts.train, parts.val)]
        plan = settings.for_rows(int(encoded[0].n_tokens.sum()), is_imported=model.is_imported)
        planned = [plan.epochs]
        network, history = train(
            network,
            features,
            LabelledRows(encoded[0], parts.y_train, ages(parts.train)),
            LabelledRows(encoded[1], parts.y_val, n_later_days=n_later_days),
            plan,
            seconds=model.training_seconds(n_trainings=2 if plan.refit else 1),
            on_planned=planned.append,
            on_epoch=self.on_epoch,
            on_calibrated=self.unseen.keep,
            checkpoints=self.state,
            refit=self.refit and not plan.refit,
            companion=model.companion == "measured",
        )
        plan = replace(plan, epochs=planned[-1], lengths=())
        if plan.refit:
            y = np.concatenate([parts.y_train, parts.y_val])
            network, _ = train_again(
                network,
                self._start()[0],
                features,
                LabelledRows(on_disk(encoded, self.paths.splits), y, ages(parts.train, parts.val)),
                plan,
                checkpoints=self.state.nested("refit"),
                n_later_days=n_later_days,
            )
        return network, features, history, plan

    def _learn_once(
        self,
        learn: "Callable[..., tuple[Network, History]]",
        network: "Network",
        rows: Any,
        validation: Any,
        plan: "TrainingPlan",
    ) -> "tuple[Network, History, TrainingPlan]":
        """Train by one of the ways that need no second training; the plan has the epochs that fit into the time."""
        planned = [plan.epochs]
        network, history = learn(
            network,
            rows,
            validation,
            plan,
            seconds=self.product.model.training_seconds(n_trainings=1),
            on_planned=planned.append,
            on_epoch=self.on_epoch,
            checkpoints=self.state,
        )
        return network, history, replace(plan, epochs=planned[-1], lengths=())

    def _plan(self, encoded: "Encoded", *, is_adapted: bool = False) -> "TrainingPlan":
        model = self.product.model
        n_tokens = int(encoded.n_tokens.sum())
        return model.train.for_rows(n_tokens, is_imported=model.is_imported, is_adapted=is_adapted)

    def _fill(self) -> "Trained":
        """Train without labels, and note how surprising the training rows are."""
        from model.training.masking import fill, surprise_quantiles

        network, features = self._start()
        encoded, validation = (self._encoded(features, part) for part in (self.parts.train, self.parts.val))
        network, history, plan = self._learn_once(fill, network, encoded, validation, self._plan(encoded))
        quantiles = surprise_quantiles(network, encoded, plan.batch_tokens)
        network.target = replace(self.parts.target, quantiles=quantiles)
        return network, features, history, plan

    def _learn_labels(self) -> "Trained":
        """Train to write labels that are texts."""
        from model.features.label_texts import LabelTexts
        from model.training.generation.labels import learn_labels

        parts, is_adapted = self.parts, self.product.model.is_language_model
        network, features = self._start()
        # Of a language model an epoch is the fraction that fits into the minutes: more rows would take its time.
        later = parts.val.sample(N_VALIDATED_ROWS if is_adapted else len(parts.y_val))
        rows, validation = (
            (self._encoded(features, part), LabelTexts.of(features.tokenizer, y, parts.target.max_tokens))
            for part, y in ((parts.train, parts.y_train), (later, parts.y_val[later.places_in(parts.val)]))
        )
        plan = self._plan(rows[0], is_adapted=is_adapted)
        network, history, plan = self._learn_once(learn_labels, network, rows, validation, plan)
        return network, features, history, plan

    def _learn_spans(self) -> "Trained":
        """Train to find answers in a text; the longest that is found is as long as the longest of the training rows."""
        from model.features.answers.windows import overlap_of
        from model.features.fitted import Features
        from model.training.extraction.spans import learn_spans

        parts, features = self.parts, Features.load(self.paths.pretrained)
        rows = _with_places(features, parts.train, parts.y_train, self.paths.splits)
        validation = _with_places(features, parts.val, parts.y_val, self.paths.splits)
        longest = min(int(rows[1].lengths.max(initial=1)), overlap_of(features.sizes.max_tokens))
        print(f"train: {rows[1].summary(parts.y_train, longest)}", flush=True)
        network, features = self._start(replace(parts.target, max_tokens=longest))
        network, history, plan = self._learn_once(learn_spans, network, rows, validation, self._plan(rows[0]))
        self.unseen.keep_answers(self.product, network, validation[0])
        return network, features, history, plan


def _with_places(features: "Features", part: SplitPart, y: np.ndarray, folder: Path) -> "tuple[Encoded, SpanLabels]":
    """Return the encoded rows of a part, and where in their texts the answers stand."""
    from model.features.answers.occurrences import SpanLabels
    from model.features.encoded import Encoded, on_disk

    found, first = [], 0

    def pieces() -> Iterator[Encoded]:
        nonlocal first
        for table in part:
            encoded = features.encode(table)
            answers = y[first : (first := first + len(encoded))]
            found.append(SpanLabels.of(encoded, table[part.product.target.text], answers))
            yield encoded

    encoded = on_disk(pieces(), folder)
    return encoded, SpanLabels.joined(found)
