"""The rows that the tuned peers of breadth see, the folds on which their trials are compared, and their clock."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

FEW_ROWS, MANY_ROWS = 5_000, 20_000
SEED = 0
LABEL = "_label"
LEAST_TIMED = 2_000
"""With fewer rows a call's own cost would be timed."""


class Clock:
    """Seconds of the processor since the start, without those that were taken out."""

    def __init__(self, limit: float) -> None:
        self.taken_out = time.process_time()
        self.limit = limit

    def seconds(self) -> float:
        """Return what counts."""
        return time.process_time() - self.taken_out

    def over(self) -> bool:
        """Return whether no more is left."""
        return self.seconds() > self.limit

    def without(self, work: Callable[[], dict]) -> dict:
        """Do what does not count."""
        began = time.process_time()
        done = work()
        self.taken_out += time.process_time() - began
        return done


class Data:
    """The rows of one split, and the folds on which trials are compared."""

    def __init__(self, folder: Path) -> None:
        self.order = json.loads((folder / "order.json").read_text())
        train, val, self.test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "val", "test"))
        self.fitted = pd.concat([train, val], ignore_index=True)
        self.y = self.fitted.pop(LABEL).to_numpy()
        self.test = self.test.drop(columns=LABEL)
        self.task, self.n_classes, self.kinds = (self.order[name] for name in ("task", "n_classes", "columns"))
        n, n_train = len(self.y), len(train)
        if self.order["dated"] or n > MANY_ROWS:
            self.folds = [(np.arange(n_train), np.arange(n_train, n))]
        elif self.task == "regression":
            self.folds = list(KFold(5 if n <= FEW_ROWS else 3, shuffle=True, random_state=SEED).split(self.y))
        else:
            # A class of fewer rows than folds is allowed: scikit-learn warns of it.
            folds = StratifiedKFold(5 if n <= FEW_ROWS else 3, shuffle=True, random_state=SEED)
            self.folds = list(folds.split(self.y, self.y))

    def of(self, *kinds: str) -> list[str]:
        """Return the names of the columns of these kinds."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    @property
    def may_log(self) -> bool:
        """Return whether a target's logarithm can be modelled."""
        return self.task == "regression" and bool(self.y.min() > 0)

    def loss(self, y: np.ndarray, scores: np.ndarray) -> float:
        """Return what a trial is chosen by: the metric itself, and for F1 and accuracy the log loss."""
        if self.task == "regression":
            return float((mean_absolute_error if self.order["metric"] == "mae" else mean_squared_error)(y, scores))
        if self.order["metric"] == "auc":
            return -float(roc_auc_score(y, scores))
        return float(log_loss(y, scores, labels=np.arange(self.n_classes)))


def many(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows to time the scoring on: those given, several times over where they are few."""
    return pd.concat([rows] * max(1, -(-LEAST_TIMED // len(rows))), ignore_index=True)


def times(column: pd.Series) -> np.ndarray:
    """Return the parts of a date that a person would make: year, day of year, weekday, minute, days since 1970."""
    at = pd.DatetimeIndex(column)
    days = at.to_numpy("datetime64[s]").astype(np.int64) / 86_400
    return np.stack([at.year, at.dayofyear, at.dayofweek, at.hour * 60 + at.minute, days], axis=1)
