"""Add to the held-out rows of a product without labels copies with one cell changed: what its model must find."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from model.evaluation.swaps import changed_rows
from model.features.fitting import chosen_rows
from model.features.kinds import guessed_columns
from tasks.params import Product
from tasks.rows.partitions import n_rows, read_pieces, table_writer

MAX_CHANGED = 10_000
"""Rows of a part that are changed, of more a sample: each is scored as often as it has columns."""
SEED = 0


def add_changed_rows(file: Path, product: Product) -> int:
    """Add copies of a part's rows, or of a sample, in each of which one cell is changed; return how many.

    Their label is the name of the column.
    """
    n, pieces, first, columns = n_rows(file), [], 0, guessed_columns(product.columns)
    chosen = np.zeros(n, bool)
    chosen[chosen_rows(n, MAX_CHANGED)] = True
    with table_writer(file) as write:  # the file is replaced when all is written
        for piece in read_pieces(file):
            write(piece)
            pieces.append(piece.filter(pa.array(chosen[first : (first := first + len(piece))])))
        rows = pa.concat_tables(pieces)
        changed, names = changed_rows(rows.to_pandas(), columns, SEED)
        changed = changed.assign(**{product.target.name: pd.array(names, dtype="str")})
        write(pa.Table.from_pandas(changed, schema=rows.schema, preserve_index=False))
    return len(changed)
