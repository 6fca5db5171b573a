"""Join the newest labels to rows by key; part them into train, validation and test, and keep the rest for pretraining.

No leak: rows of one group never straddle a split, and held-out rows are absent from pretraining too.
Within validation and test a text that came twice is measured once, while every row of a customer is
(`split.per_group`). What quarantine took is said where it leaves too little, and most of the labels is an error.

Never holds the rows: parts are decided on one label, one date and the digest of its group per row, then the files are
read a second time and each row written to its parts, in order of date and key. A split by time reads its own days and
newer ones alone, however long the history is.

At last it looks at the columns of the training rows: copies of others, names and numbers of rows, and what alone gives
the answer away are said in a line each, and stop nothing.
"""

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from model.heads import head_of
from tasks import stage
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.losses import Losses
from tasks.rows.splitting import split_rows
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths

if TYPE_CHECKING:
    from model.evaluation.columns import Finding

MAX_LOOKED_AT = 10_000
"""Training rows by which columns are looked at."""


def split(product: Product, as_of: date) -> str:
    """Write data/splits: train, val, test (labelled) and, for `init: pretrain`, every row that is not held out.

    Raises UserError when a part would be empty or hold only one class, or most labels cannot be read.
    """
    paths = Paths(product.name)
    losses = Losses.read(paths.quarantine)
    parts = split_rows(product, as_of, paths.valid, paths.splits, losses)
    found = look_at_columns(product, paths.splits)
    write_json(paths.report("split.json"), {**parts.to_json(), "columns": [asdict(each) for each in found]})
    return "\n".join([parts.summary, *(f"LOOK: {each.hint}" for each in found)])


def look_at_columns(product: Product, splits: Path) -> "list[Finding]":
    """Return what is to be said of the inputs, by a sample of the training rows: copies, row numbers, leaks."""
    from model.evaluation.columns import look

    train = model_inputs.split_part(splits, "train", product)
    rows = train.sample(MAX_LOOKED_AT)
    labels = rows.labels
    y = model_inputs.targets(labels, product, model_inputs.classes(labels, product))
    return look(product.inputs, rows.read_all(), y, head_of(product.target.task), len(train))


if __name__ == "__main__":
    stage.main(split)
