"""The plain forecast that a model of several days ahead must beat: the last value of the same weekday.

What is predicted of a day is the newest label of its weekday that was known on the row's day, which `split` has put
beside each row. Quantiles lie around it as the labels of training and validation rows of the same horizon did.

Source: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice" (3rd edition, 2021), section 5.2.
"""

from pathlib import Path

import numpy as np

from tasks.params import HORIZON, NAIVE, Product
from tasks.rows import model_inputs
from tasks.rows.model_inputs import SplitPart


def naive_scores(product: Product, splits: Path, rows: SplitPart) -> np.ndarray:
    """Return the numbers, with their quantiles where the product has such. Shapes: float32 [n], or [n, 1 + levels].

    A row of a series without a label of that weekday gets the mean of the training labels.
    """
    known = [_columns(model_inputs.split_part(splits, name, product)) for name in ("train", "val")]
    labels, naive, horizon = (np.concatenate(each) for each in zip(*known, strict=True))
    usual, levels = float(labels.mean()), list(product.predict.quantiles)
    _, found, of_row = _columns(rows)
    point = np.where(np.isnan(found), usual, found)
    if not levels:
        return point.astype(np.float32)
    errors = labels - np.where(np.isnan(naive), usual, naive)
    around = {days: np.quantile(errors[horizon == days], levels) for days in np.unique(horizon)}
    of_all = np.quantile(errors, levels)
    beside = point[:, None] + np.stack([around.get(days, of_all) for days in of_row])
    return np.c_[point, beside].astype(np.float32)


def _columns(rows: SplitPart) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, seasonal naive labels (NaN where there is none) and horizons.

    Shapes: float64, float64, int64 [n].
    """
    table = rows.columns([rows.product.target.name, NAIVE, HORIZON])
    label, naive, horizon = (table[name].to_numpy() for name in table)
    return label.astype("float64"), naive.astype("float64"), horizon.astype("int64")
