"""Repeat rows for every horizon of `predict.horizon_days`, and name the rows that hold their labels.

A row of day D and horizon h is predicted on D; what is predicted is the label of the row of day D + h whose key is the
same but for the time. Where the horizon is one number, rows are as they are.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

from model.heads import head_of
from tasks.params import FOR_DAY, HORIZON, Product
from tasks.rows.keys import key_text

WEEK = 7
NAIVE_WEEKS = 4
"""Weeks in which a label of the predicted weekday is looked for, the newest first."""


def by_horizon(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    """Return every row once for each horizon, one after the other, with the horizon and the date that is predicted."""
    if not product.predict.horizons:
        return rows
    at, days = places(len(rows), product)
    repeated = rows.take(at).reset_index(drop=True)
    repeated[HORIZON], repeated[FOR_DAY] = days, _later(repeated[product.time], days)
    return repeated


def table_by_horizon(rows: pa.Table, product: Product) -> pa.Table:
    """Return what `by_horizon` does, of a table of Arrow's."""
    if not product.predict.horizons:
        return rows
    at, days = places(len(rows), product)
    time = rows.column(product.time).take(pa.array(at))
    dates = pa.array(_later(time.to_pandas(), days), from_pandas=True).cast(time.type)
    return rows.take(pa.array(at)).append_column(HORIZON, pa.array(days)).append_column(FOR_DAY, dates)


def places(n_rows: int, product: Product) -> tuple[np.ndarray, np.ndarray]:
    """Return for each repeated row the row that it is of, and its horizon in days. Shapes: int64, int32 [n]."""
    horizons = np.array(product.predict.horizons or (0,), np.int32)
    return np.repeat(np.arange(n_rows), len(horizons)), np.tile(horizons, n_rows)


def name_columns(product: Product) -> list[str]:
    """Return the columns that together name a prediction: the key, and where there are several the horizon."""
    return [*product.key, *([HORIZON] if product.predict.horizons else [])]


def label_columns(product: Product) -> list[str]:
    """Return the columns by which `label_names` finds labels: the key, and with several horizons these and the date."""
    return [*product.key, *([HORIZON, FOR_DAY] if product.predict.horizons else [])]


def label_names(rows: pd.DataFrame, product: Product) -> pd.Series:
    """Return the key, as text, of the row whose label is predicted; `rows` are as of `by_horizon`."""
    if not product.predict.horizons:
        return key_text(rows, list(product.key))
    return key_text(rows.assign(**{product.time: rows[FOR_DAY]}), list(product.key))


def has_naive(product: Product) -> bool:
    """Return whether rows have a seasonal naive label: a number, of which several horizons are predicted."""
    return bool(product.predict.horizons) and head_of(product.target.task).has_label_scale


def naive_names(rows: pd.DataFrame, product: Product, weeks_before: int) -> pd.Series:
    """Return the key, as text, of the newest row of the predicted weekday whose label was known on a row's day.

    Or of one so many weeks before that.
    """
    weeks = -(-(rows[HORIZON].to_numpy() + product.target.delay_days) // WEEK) + weeks_before
    return key_text(rows.assign(**{product.time: _later(rows[FOR_DAY], -WEEK * weeks)}), list(product.key))


def _later(times: pd.Series, days: np.ndarray) -> pd.Series:
    """Return times so many days later."""
    return times + pd.Series(pd.to_timedelta(days, unit="D").as_unit("s"), index=times.index)
