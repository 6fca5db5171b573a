"""Fit vocabularies, scales and bins, and make the weights that fine-tuning starts from."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.heads import head_of
from model.heads.generate import BITS_PER_BYTE
from model.target import Target
from tasks.params import Product
from tasks.params.fields import find_weights
from tasks.rows import model_inputs
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, write_history, write_json
from tasks.runtime.paths import Paths
from tasks.training import code
from tasks.training.checkpoints import PLAN, CheckpointFolder, checkpoints

if TYPE_CHECKING:
    from model.features.fitted import Features
    from model.network.network import Network

History = list[dict[str, float]]
"""One entry per epoch."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """How the starting weights were made."""

    init: str
    """The product's `model.init`."""
    n_weights: int
    """Numbers in the network."""
    history: History
    """Losses of masked modelling, or of going on with texts; empty for other starts."""

    @property
    def summary(self) -> str:
        """Return the line that the stage prints."""
        line = f"{self.init}: {self.n_weights:,} weights"
        if not self.history:
            return line
        if BITS_PER_BYTE in self.history[-1]:
            best = min(self.history, key=lambda entry: entry["val_loss"])
            return (
                f"{line}, of held-out rows' texts {best['val_loss']:.3f} nats a subword, "
                f"{best[BITS_PER_BYTE]:.3f} bits per byte"
            )
        return f"{line}, masked-modelling loss {self.history[-1]['train_loss']:.3f} of a blind guess's"


def pretrain(product: Product, paths: Paths) -> Pretrained:
    """Read the splits below `paths`, write the starting weights and the history of their losses there.

    Raises UserError where the weights named by `init` are absent or do not fit, and when training diverges.
    """
    from model.compute import distributed
    from model.network.store import save_model

    features = fit_features(product, paths.splits)
    parts = ("train", "val", "pretrain") if product.model.init == "pretrain" else ("train", "val")
    data = [paths.splits / f"{part}.parquet" for part in parts]
    with distributed.together(), checkpoints("pretrain", product, data, code.PRETRAINING) as state:
        planned = [product.model.pretrain.epochs]
        network, history = _starting_weights(product, paths.splits, features, state, planned.append)
        if distributed.rank() == 0:
            with atomic_folder(paths.pretrained) as folder:
                save_model(folder, network, features)
                if history:
                    write_json(folder / PLAN, asdict(replace(product.model.pretrain, epochs=planned[-1])))
            columns = list(history[0]) if history else ["epoch", "train_loss"]
            write_history(paths.report("pretraining.csv"), history, columns)
    n_weights = sum(weight.numel() for weight in (*network.parameters(), *network.given().values()))
    return Pretrained(init=product.model.init, n_weights=n_weights, history=history)


def fit_features(product: Product, splits: Path) -> "Features":
    """Fit vocabularies, scales and bins on the training rows; the tokenizer is that of imported weights, if any.

    Before masked modelling they are fitted on all rows that it reads, without labels: where few rows have one, the
    words and numbers of the others would be unknown ones. Of the validation rows, which what scores learns
    from at last, the newest times alone are read.
    """
    from model.features.fitted import Features

    head = head_of(product.target.task)
    writes_texts, label_texts = head.writes_texts, None
    if writes_texts:
        labels = model_inputs.split_part(splits, "train", product).labels
        label_texts = model_inputs.targets(labels, product, ())
    settings, weights = product.model.network_settings(), weights_folder(product)
    if weights and product.model.is_language_model:
        return _prompts(product, weights, settings.max_tokens)
    if product.model.init == "pretrain":
        rows, y = model_inputs.split_part(splits, "pretrain", product), None
    else:
        rows = model_inputs.split_part(splits, "train", product)
        y = None
        # By the number of an item no cell of a column is told apart.
        if head.has_labels and not (head.answers_lists or head.writes_texts or head.answers_spans):
            y = model_inputs.targets(rows.labels, product, model_inputs.classes(rows.labels, product))
    return Features.fit(
        product.inputs,
        rows,
        y,
        product.target.task,
        max_tokens=settings.max_tokens,
        max_windows=settings.max_windows,
        # No line of words writes, or finds an answer.
        wide_tokens=0 if writes_texts or head.answers_spans else settings.wide_tokens,
        label_texts=label_texts,
        answer_in=product.target.text or None,
        item_columns={*product.target.history, *product.target.exclude},
        tokenizer=weights / "tokenizer.json" if weights else None,
        joining=model_inputs.split_part(splits, "val", product) if head.has_companion else (),
    )


def _prompts(product: Product, weights: Path, max_tokens: int) -> "Features":
    """Return features by which a row is read as a text. Raises UserError for a file that is no language model."""
    from model.features.fitted import Features
    from model.features.gguf import Gguf

    assert product.target.name is not None
    try:
        return Features.as_prompts(product.columns, product.target.name, Gguf(weights).tokenizer, max_tokens)
    except ValueError as error:
        raise _not_importable(product, error) from None


def _not_importable(product: Product, error: ValueError) -> UserError:
    return UserError(f"params.yaml: products.{product.name}.model.init: {error}")


def _starting_weights(
    product: Product,
    splits: Path,
    features: "Features",
    state: CheckpointFolder,
    on_planned: Callable[[float], None],
) -> "tuple[Network, History]":
    """Import the weights that `init` names, learn them from rows without labels, or draw them."""
    from model.features.encoded import on_disk
    from model.network.bert import load_bert
    from model.network.language.imported import load_language_model
    from model.network.network import Network
    from model.training.train import pretrain as masked_modelling

    model, settings = product.model, product.model.network_settings()
    place = f"params.yaml: products.{product.name}.model"
    if weights := weights_folder(product):
        try:
            if model.is_language_model:
                return load_language_model(weights, features.sizes), []
            return load_bert(weights, features.sizes, None, settings, seed=model.pretrain.seed), []
        except ValueError as error:
            raise _not_importable(product, error) from None
    if model.init != "pretrain":
        return Network(settings, features.sizes, seed=model.pretrain.seed), []
    rows = model_inputs.split_part(splits, "pretrain", product)
    try:
        if head_of(product.target.task).writes_texts:
            return _learn_texts(product, splits, features, rows, state, on_planned)
        encoded = on_disk(map(features.encode, rows), splits)
        return masked_modelling(
            features, encoded, settings, model.pretrain, checkpoints=state, seconds=model.pretraining_seconds
        )
    except FloatingPointError as error:
        raise UserError(f"{place}.pretrain: {error}") from None


def _learn_texts(
    product: Product,
    splits: Path,
    features: "Features",
    rows: SplitPart,
    state: CheckpointFolder,
    on_planned: Callable[[float], None],
) -> "tuple[Network, History]":
    """Learn to go on with the rows' texts; those of the validation rows say how well."""
    from model.features.encoded import on_disk
    from model.training.generation.continuations import learn_continuations

    model = product.model
    return learn_continuations(
        features,
        rows,
        model_inputs.split_part(splits, "val", product),
        model_inputs.as_declared(Target(task=product.target.task), product),
        model.network_settings(),
        model.pretrain,
        on_disk=lambda pieces: on_disk(pieces, splits),
        checkpoints=state,
        seconds=model.pretraining_seconds,
        on_planned=on_planned,
    )


def weights_folder(product: Product) -> Path | None:
    """Return what `init` names, None for scratch and pretrain. Raises UserError where it holds no weights."""
    try:
        return find_weights(product.model.init)
    except ValueError as error:
        raise _not_importable(product, error) from None
