"""Add to the held-out rows of a product without labels copies with one cell changed: what its model must find."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from model.features.fitting import chosen_rows
from model.features.kinds import guessed_columns
from tasks.params import Product
from tasks.rows.partitions import n_rows, read_pieces, table_writer

MAX_CHANGED = 10_000
"""Rows of a part that are changed, of more a sample: each is scored as often as it has columns."""
SEED = 0
N_DRAWS = 20
"""Rows that are tried for a cell that differs; where none does, the row is left out."""


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


def changed_rows(rows: pd.DataFrame, columns: list[str], seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return copies of rows with one cell changed for another row's of the same column, and which column that is.

    The columns take turns by chance; a cell that is missing is a cell as any other, and one that is equal is no change.
    Rows for which no other cell was found are left out. Shapes: returns object [n] beside the rows.
    """
    random = np.random.default_rng(seed)
    codes = {name: pd.factorize(rows[name], use_na_sentinel=False)[0] for name in columns}
    varied = [name for name in columns if len(rows) and codes[name].max() > 0]
    if not varied:
        return rows.iloc[:0], np.empty(0, object)
    chosen = random.integers(len(varied), size=len(rows))
    cells, is_changed = {name: rows[name].array.copy() for name in varied}, np.zeros(len(rows), bool)
    for number, name in enumerate(varied):
        left = np.flatnonzero(chosen == number)
        for _ in range(N_DRAWS):
            giver = random.integers(len(rows), size=len(left))
            differs = codes[name][left] != codes[name][giver]
            cells[name][left[differs]] = rows[name].array[giver[differs]]
            is_changed[left[differs]] = True
            left = left[~differs]
    return rows.assign(**cells)[is_changed], np.array(varied, object)[chosen[is_changed]]
