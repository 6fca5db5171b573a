"""Fine-tune the pretrained weights on the labelled training rows, stopping early on the validation rows, or probe them.

With `train.refit` they are then fine-tuned anew on both; what the validation rows told while unseen is kept.
Reads data/splits and data/models/<product>/pretrained, writes data/models/<product>/trained. The same seed on the same
machine gives the same bytes, also where a killed training was resumed from its checkpoint.
`torchrun --nproc-per-node N -m tasks.train <product>` trains on N GPUs, or in N processes; one of them writes.
"""

from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from tasks import stage
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_folder, write_history
from tasks.runtime.paths import Paths
from tasks.training.checkpoints import checkpoints

if TYPE_CHECKING:
    from model.features.fitted import Features
    from model.network.network import Network


def train(
    product: Product,
    as_of: date,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    refit: bool = True,
) -> str:
    """Write the trained model and the history of its losses; `on_epoch`, `refit`: see `model.training.train`.

    Raises UserError when training diverges.
    """
    from model.compute import distributed
    from model.features.encoded import on_disk
    from model.network.store import load_pretrained, save_model
    from model.target import Target
    from model.training.fit import LabelledRows
    from model.training.train import train as fine_tune
    from model.training.train import train_again

    paths, settings = Paths(product.name), product.model.train
    train_rows, val_rows = (model_inputs.split_part(paths.splits, name, product) for name in ("train", "val"))
    classes = model_inputs.classes(train_rows.truths, product)
    y_train = model_inputs.targets(train_rows.truths, product, classes)
    # A class that only the validation rows hold cannot be learnt, and would have no index.
    val_rows, y_val = val_rows.answerable(classes)
    try:
        target = Target.fit(product.target.task, classes, y_train, product.target.name)
    except ValueError as error:
        raise UserError(f"products.{product.name}: {error}") from None
    n_later_days = val_rows.n_days if product.split.by == "time" else None
    inputs = [paths.splits / "train.parquet", paths.splits / "val.parquet", paths.pretrained]

    def start() -> "tuple[Network, Features]":
        return load_pretrained(paths.pretrained, target, product.model.network_settings(), seed=settings.seed)

    def ages(*parts: model_inputs.SplitPart) -> np.ndarray | None:
        return (
            model_inputs.age_days(np.concatenate([part.times for part in parts])) if settings.half_life_days else None
        )

    network, features = start()
    with distributed.together(), checkpoints("train", product, inputs) as state:
        parts = [on_disk(map(features.encode, rows), paths.splits) for rows in (train_rows, val_rows)]
        again = refit and settings.refit
        try:
            network, history = fine_tune(
                network,
                features,
                LabelledRows(parts[0], y_train, ages(train_rows)),
                LabelledRows(parts[1], y_val, n_later_days=n_later_days),
                settings,
                on_epoch=on_epoch,
                checkpoints=state,
                refit=refit and not again,
            )
            if again:
                y, age_days = np.concatenate([y_train, y_val]), ages(train_rows, val_rows)
                network, _ = train_again(
                    network,
                    start()[0],
                    features,
                    LabelledRows(on_disk(parts, paths.splits), y, age_days),
                    settings,
                    checkpoints=state.of("refit"),
                    n_later_days=n_later_days,
                )
        except FloatingPointError as error:
            raise UserError(f"params.yaml: products.{product.name}.model.train: {error}") from None
        if distributed.rank() == 0:
            with atomic_folder(paths.trained) as folder:
                save_model(folder, network, features)
            write_history(paths.report("training.csv"), history, ["epoch", "train_loss", "val_loss"])
    kept = history[-1] if settings.keep == "last" else min(history, key=lambda entry: entry["val_loss"])
    epochs = f"kept the weights of epoch {kept['epoch']:g} of {history[-1]['epoch']:g}"
    what = epochs if settings.epochs else "fitted the head alone"
    more = f", then trained once more with the {len(y_val):,} validation rows" if again else ""
    return f"{len(y_train):,} rows; {what}, validation loss {kept['val_loss']:.4f}{more}"


if __name__ == "__main__":
    stage.main(train)
