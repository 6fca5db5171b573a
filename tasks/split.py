"""Join the newest labels to rows by key; part them into train, validation and test, and keep the rest for pretraining.

No leak: rows of one group never straddle a split, and held-out rows are absent from pretraining too.
Within validation and test a text that came twice is measured once, while every row of a customer is
(`split.per_group`). What quarantine took is said where it leaves too little, and most of the labels is an error.

Never holds the rows: parts are decided on one label, one date and the digest of its group per row, then the files are
read a second time and each row written to its parts, in order of date and key. A split by time reads its own days and
newer ones alone, however long the history is.
"""

from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.rows.losses import Losses
from tasks.rows.splitting import split_rows
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths


def split(product: Product, as_of: date) -> str:
    """Write data/splits: train, val, test (labelled) and, for `init: pretrain`, every row that is not held out.

    Raises UserError when a part would be empty or hold only one class, or most labels cannot be read.
    """
    paths = Paths(product.name)
    losses = Losses.read(paths.quarantine)
    parts = split_rows(product, as_of, paths.valid, paths.splits, losses)
    write_json(paths.report("split.json"), parts.to_json())
    return parts.summary


if __name__ == "__main__":
    stage.main(split)
