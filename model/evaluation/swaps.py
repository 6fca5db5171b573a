"""Rows in which one cell is changed for that of another row: what a model of rows should find surprising."""

import numpy as np
import pandas as pd

N_DRAWS = 20
"""Rows that are tried for a cell that differs; where none does, the row is left out."""


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
