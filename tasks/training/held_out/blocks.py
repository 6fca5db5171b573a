"""Part held-out rows into the blocks that count as observations where an interval is wanted."""

import numpy as np

from tasks.params import Product
from tasks.rows.keys import digests, key_text
from tasks.rows.labels.labelled import group_codes
from tasks.rows.model_inputs import SplitPart


def blocks_of(rows: SplitPart, product: Product) -> np.ndarray:
    """Return the block of each row: by days where the product is split by time, else by groups. Shapes: int [n]."""
    from model.evaluation.paired import blocks_of_days, blocks_of_groups

    if product.split.by == "time":
        return blocks_of_days(rows.times.astype("datetime64[D]"))
    named = rows.columns([*product.key, *filter(None, [product.split.group])])
    return blocks_of_groups(digests(group_codes(named, key_text(named, list(product.key)), product))[:, 0])
