"""A linear model as peer of breadth: words and letters by TF-IDF, one-hot categories, numbers or their splines."""

from collections.abc import Callable

import numpy as np
import optuna
import pandas as pd
from breadth_data import Clock, Data, times


class Linear:
    """Ridge or logistic regression on TF-IDF of words and letters, one-hot categories and numbers or their splines."""

    def __init__(self, data: Data, clock: Clock) -> None:
        self.data, self.clock, self.encoded = data, clock, {}

    def inputs(self, settings: dict) -> object:
        """Return the encoder that the settings ask for."""
        from sklearn.compose import ColumnTransformer
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import FeatureUnion, make_pipeline
        from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, SplineTransformer, StandardScaler

        numbers = [SimpleImputer(add_indicator=True), StandardScaler()]
        if settings.get("splines"):
            numbers += [SplineTransformer(5, knots="quantile", extrapolation="linear"), StandardScaler()]
        steps = [("numbers", make_pipeline(*numbers), self.data.of("number"))]
        parts = FunctionTransformer(lambda rows: np.concatenate([times(rows[name]) for name in rows], axis=1))
        steps.append(("times", make_pipeline(parts, StandardScaler()), self.data.of("time")))
        one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=settings.get("min_frequency", 1))
        steps.append(("categories", one_hot, self.data.of("category")))
        words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, settings.get("n_words", 1)))
        letters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, settings.get("n_letters", 4)))
        units = {"words": [("words", words)], "letters": [("letters", letters)]}
        units["both"] = [*units["words"], *units["letters"]]
        filled = FunctionTransformer(lambda cells: cells.fillna(""))
        for name in self.data.of("text"):
            text = make_pipeline(filled, FeatureUnion(units[settings.get("units", "words")]))
            steps.append((f"text {name}", text, name))
        return ColumnTransformer([step for step in steps if len(step[2])], sparse_threshold=0.5)

    def space(self, trial: optuna.Trial) -> dict:
        """Draw the settings of a trial."""
        settings: dict = {"strength": trial.suggest_float("strength", 1e-4, 1e3, log=True)}
        if self.data.of("number"):
            settings["splines"] = trial.suggest_categorical("splines", [False, True])
        if self.data.of("category"):
            settings["min_frequency"] = trial.suggest_categorical("min_frequency", [1, 3])
        if self.data.of("text"):
            settings["units"] = trial.suggest_categorical("units", ["words", "letters", "both"])
            settings["n_words"] = trial.suggest_int("n_words", 1, 2)
            settings["n_letters"] = trial.suggest_int("n_letters", 3, 5)
        if self.data.may_log:
            settings["log"] = trial.suggest_categorical("log", [False, True])
        return settings

    def try_out(self, trial: optuna.Trial) -> float:
        """Return the mean loss over the folds."""
        settings = self.space(trial) if trial.number else {"strength": 1.0}
        trial.set_user_attr("settings", settings)
        losses = []
        for fold, (rows, held_out) in enumerate(self.data.folds):
            key = (fold, *(f"{k}={v}" for k, v in settings.items() if k not in ("strength", "log")))
            if key not in self.encoded:
                encoder = self.inputs(settings)
                fitted = encoder.fit_transform(self.data.fitted.iloc[rows])
                self.encoded[key] = (fitted, encoder.transform(self.data.fitted.iloc[held_out]))
            inputs, inputs_held_out = self.encoded[key]
            scores = self.predict(self.fit(settings, inputs, self.data.y[rows]), inputs_held_out, settings)
            losses.append(self.data.loss(self.data.y[held_out], scores))
            if self.clock.over():
                break
        return float(np.mean(losses))

    def fit(self, settings: dict, inputs: object, y: np.ndarray) -> object:
        """Fit the linear model."""
        from sklearn.linear_model import LogisticRegression, Ridge

        if self.data.task == "regression":
            return Ridge(1 / settings["strength"]).fit(inputs, np.log(y) if settings.get("log") else y)
        return LogisticRegression(C=settings["strength"], max_iter=200).fit(inputs, y)

    def predict(self, model: object, inputs: object, settings: dict) -> np.ndarray:
        """Score rows."""
        if self.data.task == "regression":
            scores = model.predict(inputs)
            return np.exp(np.minimum(scores, 50)) if settings.get("log") else scores
        found = model.predict_proba(inputs)
        if self.data.task == "binary":
            return found[:, 1]
        scores = np.zeros((len(found), self.data.n_classes))
        scores[:, model.classes_.astype(int)] = found
        return scores

    def finish(self, trial: optuna.trial.FrozenTrial) -> Callable[[pd.DataFrame], np.ndarray]:
        """Return what scores rows, fitted to all but the test rows."""
        settings = trial.user_attrs["settings"]
        encoder = self.inputs(settings)
        model = self.fit(settings, encoder.fit_transform(self.data.fitted), self.data.y)
        return lambda rows: self.predict(model, encoder.transform(rows), settings)
