"""Join labels to rows by key and part them into train, validation and test; keep the rest for pretraining.

No leak: rows of one group never straddle a split, and what is held out is absent from pretraining too.
Within validation and test each group counts once, so that a text that came twice is not judged twice.

Never holds the rows: all is decided on one truth, one date and two digests per row (see `tasks.rows.keys`), then
the rows pass by once more on their way to the parts, in order of date and key.
"""

from datetime import date

import numpy as np

from tasks import stage
from tasks.params import Product
from tasks.rows.partitions import partitions
from tasks.rows.splitting import (
    NONE,
    NUMBER,
    PARTS,
    TRAIN,
    check_parts,
    days_of,
    drop_straddlers,
    index_rows,
    split_by_hash,
    split_by_time,
    write_parts,
)
from tasks.runtime.files import atomic_folder, write_json
from tasks.runtime.paths import Paths


def split(product: Product, as_of: date) -> str:
    """Write data/splits: train, val, test (labelled) and pretrain (every row that is not held out).

    Raises UserError when a part would be empty or hold only one class.
    """
    paths = Paths(product.name)
    files = partitions(paths.valid / "rows", as_of)
    index = index_rows(files, partitions(paths.valid / "labels", as_of), product)
    chosen = split_by_time(index, product.split) if product.split.by == "time" else split_by_hash(index, product.split)
    part = drop_straddlers(np.where(index.labelled, chosen, NONE), index)
    check_parts(index, part, product)
    unseen = ~np.isin(index.group, index.group[part < TRAIN])
    with atomic_folder(paths.splits) as folder:
        write_parts(files, product, index, part, unseen, folder)
    counts = {**{name: int((part == NUMBER[name]).sum()) for name in PARTS}, "pretrain": int(unseen.sum())}
    n_labelled = int(index.labelled.sum())
    write_json(
        paths.report("split.json"),
        {
            "as_of": as_of.isoformat(),
            "rows": counts,
            "rows_labelled": n_labelled,
            "rows_left_out": n_labelled - int((part != NONE).sum()),
            "days": {name: days_of(index.day[part == NUMBER[name]]) for name in PARTS},
        },
    )
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


if __name__ == "__main__":
    stage.main(split)
