"""Say how two tables differ, cell by cell, for a person to read."""

import numpy as np
import pandas as pd


def differing_cells(then: pd.DataFrame, now: pd.DataFrame) -> str:
    """Return how two tables differ; nothing where they hold the same."""
    if list(then.columns) != list(now.columns):
        return f"columns were {list(then.columns)}, are {list(now.columns)}"
    if len(then) != len(now):
        return f"rows were {len(then):,}, are {len(now):,}"
    differences = []
    for name in then.columns:
        old, new = _comparable(then[name]), _comparable(now[name])
        differs = ~((old == new) | (old.isna() & new.isna()))
        if differs.any():
            first = int(differs.to_numpy().argmax())
            differences.append(
                f"{name} in {differs.sum():,} of {len(then):,} rows, first in row {first}: "
                f"was {then[name].iloc[first]!r}, is {now[name].iloc[first]!r}"
            )
    return "; ".join(differences)


def _comparable(cells: pd.Series) -> pd.Series:
    """Return cells of which each is equal to another or not; of lists two have no one answer."""
    return cells.map(lambda cell: tuple(cell) if isinstance(cell, np.ndarray) else cell)
