"""Boosted trees as peers of breadth: LightGBM and CatBoost, their ranges and the inputs that a person would make."""

from collections.abc import Callable

import numpy as np
import optuna
import pandas as pd
from breadth_data import SEED, Clock, Data, times

N_ROUNDS = 3000
PATIENCE = 40
N_TOPICS = 50


class TreeInputs:
    """What boosted trees read: categories as ordinals, parts of times, words as topics of TF-IDF."""

    def __init__(self, data: Data) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OrdinalEncoder

        self.data, self.texts, self.ordinals = data, {}, None
        self.names = data.of("category")
        if self.names:
            unknown = {"handle_unknown": "use_encoded_value", "unknown_value": -1, "encoded_missing_value": -1}
            self.ordinals = OrdinalEncoder(**unknown).fit(data.fitted[self.names].astype(object))
        for name in data.of("text"):
            cells = data.fitted[name].fillna("")
            # Short texts are names: their letters say more than their words.
            letters = cells.str.split().str.len().mean() < 5
            units = {"analyzer": "char_wb", "ngram_range": (2, 4)} if letters else {"sublinear_tf": True}
            words = TfidfVectorizer(min_df=2, **units)
            size = min(N_TOPICS, words.fit_transform(cells).shape[1] - 1)
            self.texts[name] = make_pipeline(words, TruncatedSVD(size, random_state=SEED)).fit(cells)

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the inputs, the categories first."""
        parts = []
        if self.ordinals:
            parts.append(self.ordinals.transform(rows[self.names].astype(object)))
        parts += [rows[[name]].to_numpy(np.float64) for name in self.data.of("number")]
        parts += [times(rows[name]) for name in self.data.of("time")]
        parts += [text.transform(rows[name].fillna("")) for name, text in self.texts.items()]
        return np.concatenate(parts, axis=1).astype(np.float32)


class Trees:
    """Boosted trees of one library: how a trial is drawn, cross-validated and fitted."""

    def __init__(self, data: Data, clock: Clock) -> None:
        self.data, self.clock = data, clock
        self.encode = TreeInputs(data)
        self.inputs = self.encode(data.fitted)
        self.n_categories = len(self.encode.names)

    def transformed(self, settings: dict) -> tuple[np.ndarray, Callable]:
        """Return the target as it is learnt, and the way back."""
        if settings.pop("log", False):
            return np.log(self.data.y), np.exp
        return self.data.y, np.asarray

    def try_out(self, trial: optuna.Trial) -> float:
        """Return the mean loss over the folds; the rounds at which each ended are kept with the trial."""
        settings = self.space(trial) if trial.number else {}
        if trial.number and self.data.may_log:
            settings["log"] = trial.suggest_categorical("log", [False, True])
        trial.set_user_attr("settings", dict(settings))
        target, back = self.transformed(settings)
        losses, rounds = [], []
        for rows, held_out in self.data.folds:
            model, n_rounds = self.fit(settings, rows, target, held_out)
            losses.append(self.data.loss(self.data.y[held_out], back(self.predict(model, self.inputs[held_out]))))
            rounds.append(n_rounds)
            if self.clock.over():  # the folds so far must do
                break
        trial.set_user_attr("rounds", max(1, round(float(np.mean(rounds)))))
        return float(np.mean(losses))

    def finish(self, trial: optuna.trial.FrozenTrial) -> Callable[[pd.DataFrame], np.ndarray]:
        """Return what scores rows, fitted to all but the test rows."""
        settings = dict(trial.user_attrs["settings"])
        target, back = self.transformed(settings)
        model, _ = self.fit(settings, np.arange(len(target)), target, None, trial.user_attrs["rounds"])
        return lambda rows: back(self.predict(model, self.encode(rows)))

    def stopped(self, *_: object) -> bool:
        """Return whether a fit within a trial must end at once."""
        return self.clock.over()


class LightGBM(Trees):
    """Source: LightGBM's own parameters; ranges as those of peer_trees.py, widened for few rows."""

    def space(self, trial: optuna.Trial) -> dict:
        """Draw the settings of a trial."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 3, 128, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 2, 200, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 1),
            "bagging_freq": 1,
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 100, log=True),
            "cat_smooth": trial.suggest_float("cat_smooth", 1, 100, log=True),
            "extra_trees": trial.suggest_categorical("extra_trees", [False, True]),
        }

    def fit(
        self,
        settings: dict,
        rows: np.ndarray,
        target: np.ndarray,
        held_out: np.ndarray | None,
        rounds: int = N_ROUNDS,
    ) -> tuple[object, int]:
        """Fit, with early stopping where rows are held out."""
        import lightgbm

        objective = "regression_l1" if self.data.order["metric"] == "mae" else self.data.task
        fixed = {"objective": objective, "verbosity": -1, "num_threads": 1, "seed": SEED, "deterministic": True}
        if self.data.task == "multiclass":
            fixed["num_class"] = self.data.n_classes
        categories = list(range(self.n_categories)) or "auto"
        given = {"categorical_feature": categories, "params": {"verbosity": -1}}
        train = lightgbm.Dataset(self.inputs[rows], target[rows], **given)
        if held_out is None:
            return lightgbm.train({**fixed, **settings}, train, rounds), rounds
        val = lightgbm.Dataset(self.inputs[held_out], target[held_out], reference=train)

        def end(at: object) -> None:
            if self.clock.over():
                raise lightgbm.callback.EarlyStopException(at.iteration, at.evaluation_result_list)

        calls = [lightgbm.early_stopping(PATIENCE, verbose=False), end]
        model = lightgbm.train({**fixed, **settings}, train, rounds, [val], callbacks=calls)
        return model, max(1, model.best_iteration)

    def predict(self, model: object, inputs: np.ndarray) -> np.ndarray:
        """Score rows."""
        return model.predict(inputs, num_threads=1)


class CatBoost(Trees):
    """Source: CatBoost's own parameters."""

    def space(self, trial: optuna.Trial) -> dict:
        """Draw the settings of a trial."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
            "depth": trial.suggest_int("depth", 2, 8),
            "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 0.5, 100, log=True),
            "random_strength": trial.suggest_float("random_strength", 0.1, 10, log=True),
            "bagging_temperature": trial.suggest_float("bagging_temperature", 0, 2),
            "rsm": trial.suggest_float("rsm", 0.3, 1),
            "max_ctr_complexity": trial.suggest_int("max_ctr_complexity", 1, 2),
        }

    def fit(
        self,
        settings: dict,
        rows: np.ndarray,
        target: np.ndarray,
        held_out: np.ndarray | None,
        rounds: int = N_ROUNDS,
    ) -> tuple[object, int]:
        """Fit, with early stopping where rows are held out."""
        import catboost

        loss = {"binary": "Logloss", "multiclass": "MultiClass"}.get(self.data.task)
        loss = loss or ("MAE" if self.data.order["metric"] == "mae" else "RMSE")
        fixed = {"loss_function": loss, "thread_count": 1, "random_seed": SEED, "iterations": rounds}
        fixed |= {"verbose": False, "allow_writing_files": False}
        if self.data.task == "multiclass":
            fixed["classes_count"] = self.data.n_classes
        if held_out is None:
            return catboost.CatBoost({**fixed, **settings}).fit(self.pool(self.inputs[rows], target[rows])), rounds
        if "learning_rate" not in settings:
            settings = {**settings, "learning_rate": 0.05}  # else it depends on the rounds, which only end early

        class End:
            def after_iteration(inner, _: object) -> bool:
                return not self.clock.over()

        model = catboost.CatBoost({**fixed, **settings, "od_type": "Iter", "od_wait": PATIENCE, "use_best_model": True})
        model.fit(
            self.pool(self.inputs[rows], target[rows]),
            eval_set=self.pool(self.inputs[held_out], target[held_out]),
            callbacks=[End()],
        )
        return model, max(1, model.tree_count_)

    def finish(self, trial: optuna.trial.FrozenTrial) -> Callable[[pd.DataFrame], np.ndarray]:
        """Fit the defaults with the rate at which they were tried."""
        trial.user_attrs["settings"].setdefault("learning_rate", 0.05)
        return super().finish(trial)

    def predict(self, model: object, inputs: np.ndarray) -> np.ndarray:
        """Score rows."""
        kind = "RawFormulaVal" if self.data.task == "regression" else "Probability"
        scores = model.predict(self.pool(inputs), prediction_type=kind, thread_count=1)
        return scores[:, 1] if self.data.task == "binary" else scores

    def pool(self, inputs: np.ndarray, target: np.ndarray | None = None) -> object:
        """Return rows as CatBoost reads them: categories are not numbers."""
        import catboost

        if not self.n_categories:
            return catboost.Pool(inputs, target)
        features = catboost.FeaturesData(
            num_feature_data=np.ascontiguousarray(inputs[:, self.n_categories :]) if self.n_numbers(inputs) else None,
            cat_feature_data=inputs[:, : self.n_categories].astype(np.int64).astype(str).astype(bytes).astype(object),
        )
        return catboost.Pool(features, target)

    def n_numbers(self, inputs: np.ndarray) -> int:
        """Return how many of the inputs are not categories."""
        return inputs.shape[1] - self.n_categories
