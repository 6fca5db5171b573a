"""Peers of a yes or no on a table of categories and numbers: what a credit risk analyst would pick."""

import numpy as np
import pandas as pd
from matrix.data import SEED, Data
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def line() -> LogisticRegressionCV:
    """Return a logistic regression whose strength is chosen by five folds."""
    settings = {"scoring": "neg_log_loss", "max_iter": 2000, "l1_ratios": (0,), "use_legacy_attributes": False}
    return LogisticRegressionCV(Cs=10, cv=5, **settings)


class Logistic:
    """Logistic regression on one-hot categories and standardised numbers; its strength by five folds."""

    def __init__(self, data: Data) -> None:
        categories, numbers = data.of("category"), data.of("number")
        encoder = ColumnTransformer(
            [
                ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
                ("numbers", StandardScaler(), numbers),
            ]
        )
        self.columns = categories + numbers
        self.model = make_pipeline(encoder, line()).fit(data.fitted[self.columns], data.y)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability of a yes."""
        return self.model.predict_proba(rows[self.columns])[:, 1]


class Scorecard:
    """Columns in optimal bins as weights of evidence, and a line of them. Source: OptBinning, its own tutorial."""

    def __init__(self, data: Data) -> None:
        from optbinning import BinningProcess

        self.columns = [*data.kinds]
        rows = data.fitted[self.columns]
        self.bins = BinningProcess(self.columns, categorical_variables=data.of("category")).fit(rows, data.y)
        self.line = line().fit(self.bins.transform(rows, metric="woe"), data.y)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability of a yes."""
        return self.line.predict_proba(self.bins.transform(rows[self.columns], metric="woe"))[:, 1]


class LightGBM:
    """LightGBM with categories as such; few leaves, as few rows ask for, the number of trees by five folds."""

    def __init__(self, data: Data) -> None:
        import lightgbm

        self.columns, categories = [*data.kinds], data.of("category")
        self.levels = {name: pd.CategoricalDtype(sorted(data.fitted[name].dropna().unique())) for name in categories}
        settings = {"objective": "binary", "learning_rate": 0.03, "num_leaves": 7, "min_data_in_leaf": 20}
        settings |= {"verbosity": -1, "num_threads": 1, "seed": SEED, "deterministic": True}
        train = lightgbm.Dataset(self._inputs(data.fitted), data.y, free_raw_data=False)
        stop = [lightgbm.early_stopping(40, verbose=False)]
        found = lightgbm.cv(settings, train, 1000, nfold=5, stratified=True, seed=SEED, callbacks=stop)
        self.model = lightgbm.train(settings, train, len(found["valid binary_logloss-mean"]))

    def _inputs(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[self.columns].astype(self.levels)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability of a yes."""
        return self.model.predict(self._inputs(rows), num_threads=1)


class CatBoost:
    """CatBoost by its defaults but for rate, depth and trees, which suit few rows."""

    def __init__(self, data: Data) -> None:
        import catboost

        self.columns, self.categories = [*data.kinds], data.of("category")
        settings = {"loss_function": "Logloss", "learning_rate": 0.05, "depth": 4, "iterations": 200}
        settings |= {"thread_count": 1, "random_seed": SEED, "verbose": False, "allow_writing_files": False}
        train = catboost.Pool(self._inputs(data.fitted), data.y, cat_features=self.categories)
        self.model = catboost.CatBoostClassifier(**settings).fit(train)

    def _inputs(self, rows: pd.DataFrame) -> pd.DataFrame:
        found = rows[self.columns].copy()
        found[self.categories] = found[self.categories].fillna("").astype(str)
        return found

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability of a yes."""
        return self.model.predict_proba(self._inputs(rows), thread_count=1)[:, 1]


PEERS = {
    "logistic regression": Logistic,
    "scorecard (OptBinning)": Scorecard,
    "LightGBM": LightGBM,
    "CatBoost": CatBoost,
}
