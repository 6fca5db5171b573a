"""Fine-tune the pretrained weights on the labelled training rows, stopping early on the validation rows.

Reads data/splits and data/models/<product>/pretrained, writes data/models/<product>/trained. The same seed on
the same machine gives the same bytes.
"""

from collections.abc import Callable
from datetime import date

from tasks import stage, tables
from tasks.errors import UserError
from tasks.files import whole_folder
from tasks.params import Product
from tasks.paths import Paths
from tasks.pretrain import write_history


def train(product: Product, as_of: date, on_epoch: Callable[[dict[str, float]], None] | None = None) -> str:
    """Write the trained model and the history of its losses, telling `on_epoch` of each. Raises UserError when
    training diverges."""
    from model.store import load_pretrained, save_model
    from model.target import Target
    from model.training import train as fine_tune

    paths, settings = Paths(product.name), product.model.train
    train_rows, val_rows = (tables.read_split(paths.splits, name) for name in ("train", "val"))
    classes = tables.classes(train_rows, product)
    y_train = tables.targets(train_rows, product, classes)
    # A class that only the validation rows hold cannot be learnt, and would have no index.
    val_table, y_val = tables.answerable(val_rows, product, classes)
    network, features = load_pretrained(
        paths.pretrained,
        Target.fit(product.target.task, classes, y_train),
        product.model.network_settings(),
        seed=settings.seed,
    )
    try:
        network, history = fine_tune(
            network,
            features,
            features.encode(tables.inputs(train_rows, product)),
            y_train,
            features.encode(val_table),
            y_val,
            settings,
            on_epoch,
        )
    except FloatingPointError as error:
        raise UserError(f"params.yaml: products.{product.name}.model.train: {error}") from None
    with whole_folder(paths.trained) as folder:
        save_model(folder, network, features)
    write_history(paths.report("training.csv"), history, ["epoch", "train_loss", "val_loss"])
    best = min(history, key=lambda entry: entry["val_loss"])
    last = history[-1]["epoch"]
    return (
        f"{len(train_rows):,} rows; best validation loss {best['val_loss']:.4f} "
        f"after epoch {best['epoch']:g} of {last:g}"
    )


if __name__ == "__main__":
    stage.main(train)
