"""Fit vocabularies, scales and bins on the training rows, and make the weights that training starts from.

`init: pretrain` learns by masked modelling from every row up to as_of, labelled or not, except the held-out
ones. `init: scratch` starts from random weights, `package:<package>/<folder>` and `dir:<path>` from
BERT-family weights. The result lies in data/models/<product>/pretrained. A killed pretraining is resumed from its
checkpoint; torchrun spreads it over processes as it does `tasks.train`.
"""

import importlib.util
from datetime import date
from pathlib import Path

from tasks import stage
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, write_history
from tasks.runtime.paths import Paths
from tasks.training.checkpoints import checkpoints


def pretrain(product: Product, as_of: date) -> str:
    """Write the starting point of training and the history of getting there.

    Raises UserError where the weights named by `init` are absent or do not fit, and when training diverges.
    """
    from model.compute import distributed
    from model.features.encoded import on_disk
    from model.features.fitted import Features
    from model.network.bert import load_bert
    from model.network.network import Network
    from model.network.store import save_model
    from model.training.train import pretrain as masked_modelling

    paths, settings = Paths(product.name), product.model.network_settings()
    rows = model_inputs.split_part(paths.splits, "train", product)
    weights = weights_folder(product)
    features = Features.fit(
        product.columns,
        rows,
        model_inputs.targets(rows.truths, product, model_inputs.classes(rows.truths, product)),
        product.target.task,
        max_tokens=settings.max_tokens,
        max_windows=settings.max_windows,
        wide_tokens=settings.wide_tokens,
        tokenizer=weights / "tokenizer.json" if weights else None,
    )
    history: list[dict[str, float]] = []
    inputs = [paths.splits / "train.parquet", paths.splits / "pretrain.parquet"]
    with distributed.together(), checkpoints("pretrain", product, inputs) as kept:
        if weights:
            try:
                network = load_bert(weights, features.sizes, None, settings, seed=product.model.pretrain.seed)
            except ValueError as error:
                raise UserError(f"params.yaml: products.{product.name}.model.init: {error}") from None
        elif product.model.init == "pretrain":
            rows = model_inputs.split_part(paths.splits, "pretrain", product)
            encoded = on_disk(map(features.encode, rows), paths.splits)
            try:
                network, history = masked_modelling(
                    features, encoded, settings, product.model.pretrain, checkpoints=kept
                )
            except FloatingPointError as error:
                raise UserError(f"params.yaml: products.{product.name}.model.pretrain: {error}") from None
        else:
            network = Network(settings, features.sizes, seed=product.model.pretrain.seed)
        if distributed.rank() == 0:
            with atomic_folder(paths.pretrained) as folder:
                save_model(folder, network, features)
            write_history(paths.report("pretraining.csv"), history, ["epoch", "train_loss"])
    n_weights = sum(weight.numel() for weight in network.parameters())
    return f"{product.model.init}: {n_weights:,} weights" + (
        f", masked-modelling loss {history[-1]['train_loss']:.3f} of a blind guess's" if history else ""
    )


def weights_folder(product: Product) -> Path | None:
    """The folder that `init` names, or None for scratch and pretrain. Raises UserError where it is not there."""
    kind, _, name = product.model.init.partition(":")
    if not name:
        return None
    place = f"params.yaml: products.{product.name}.model.init"
    folder = Path(name)
    if kind == "package":
        package, _, inner = name.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"{place}: the package {package} must be installed, and is not; pip install it")
        folder = Path(spec.submodule_search_locations[0]) / inner
    if not (folder / "model.safetensors").exists():
        raise UserError(f"{place}: must name a folder with model.safetensors, and {name} holds none; correct the path")
    return folder


if __name__ == "__main__":
    stage.main(pretrain)
