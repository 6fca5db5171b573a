"""The line through the columns: a regression with a ridge penalty, logistic where labels are classes.

Shape legend: n rows, k inputs, o outputs.
"""

from typing import Any

import numpy as np

from model.heads.base import Head
from model.training.boosting import LOGIT_OF_NONE


def fit_line(
    head: Head, inputs: Any, y: np.ndarray, n_outputs: int, strength: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of a regression with a ridge penalty, logistic where labels are classes.

    Shapes: inputs sparse [n, k]; y [n] or [n, o]; returns float64 [k, o], [o].
    """
    from scipy import sparse

    inputs = sparse.csr_matrix(inputs)
    # What no row has gets no weight; of groups of letters that is most.
    used = np.unique(inputs.indices)
    full, inputs = np.zeros((inputs.shape[1], n_outputs)), inputs[:, used]
    full[used], bias = _fit_used(head, inputs, y, n_outputs, strength, weights)
    return full, bias


def _fit_used(
    head: Head, inputs: Any, y: np.ndarray, n_outputs: int, strength: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Do what `fit_line` does, of inputs that rows have."""
    from sklearn.linear_model import LogisticRegression, Ridge

    weight, bias = np.zeros((inputs.shape[1], n_outputs)), np.zeros(n_outputs)
    if not head.has_classes:
        ridge = Ridge(alpha=strength, solver="lsqr", tol=1e-6).fit(inputs, y.reshape(len(y), -1), weights)
        errors = y.reshape(len(y), -1)[:, 0] - ridge.predict(inputs).reshape(len(y), -1)[:, 0]
        return ridge.coef_.reshape(n_outputs, -1).T, ridge.intercept_.reshape(-1) + head.spread(errors, weights)
    columns = [y] if y.ndim == 1 else list(y.T)
    is_of_several = len(columns) == 1 and n_outputs > 1
    if is_of_several:
        bias -= LOGIT_OF_NONE  # of a class that these rows do not hold
    for at, column in enumerate(columns):
        known = np.unique(column.astype(np.int64))
        if len(known) == 1:
            bias[known[0] if is_of_several else at] = LOGIT_OF_NONE if is_of_several or known[0] else -LOGIT_OF_NONE
            continue
        model = LogisticRegression(C=1 / strength, max_iter=300, tol=1e-3)
        model.fit(inputs, column.astype(np.int64), sample_weight=weights)
        found, start = model.coef_.T, model.intercept_
        if is_of_several:
            if len(known) == 2:
                found, start = np.hstack([-found / 2, found / 2]), np.r_[-start / 2, start / 2]
            weight[:, known], bias[known] = found, start
        else:
            weight[:, at], bias[at] = found[:, 0], start[0]
    return weight, bias
