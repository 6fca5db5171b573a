"""Boosted trees, tuned with Optuna and fitted: `python peer_trees.py FOLDER LIBRARY`, under the peers' Python.

FOLDER/order.json says what to do: `target` (0 or 1), `categories`, `numbers`, `trials`, two lists of pairs of Parquet
files, rows to fit and rows to score: `tuning` and `final`, and `seeds`, how many for each final pair. The settings with
the best mean AUC over the tuning pairs (without any: PLAIN) are fitted on every final pair, per seed and per entry of
`half_lives`: after so many days of `age_days` a row weighs half, 0 for no fading. Scores go to FOLDER/LIBRARY.parquet
(pair, seed, half_life, score, in the order of the rows), the settings are printed as JSON.
"""

import itertools
import json
import os
import sys
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import optuna
import pandas as pd
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
TIME_BOX_SECONDS = 900
"""No trial of a library is begun after this."""
PLAIN = {"n_estimators": 200, "learning_rate": 0.05}
"""LightGBM's settings where nothing is tuned."""


def main() -> None:
    """Tune, fit, score."""
    folder, library = Path(sys.argv[1]), sys.argv[2]
    order = json.loads((folder / "order.json").read_text())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=8),
    )
    tuning = [_read(folder, pair, order) for pair in order["tuning"]]
    study.optimize(
        lambda trial: _mean_auc(trial, library, tuning, order),
        n_trials=order["trials"],
        timeout=TIME_BOX_SECONDS,
        show_progress_bar=True,
    )
    settings = study.best_params if tuning else PLAIN
    scored = []
    for number, names in enumerate(tqdm(order["final"], desc=library, unit="pair")):
        pair = _read(folder, names, order)
        for seed, half_life in itertools.product(range(order["seeds"][number]), order["half_lives"]):
            scores = _fit_and_score(library, settings, pair, order, seed, half_life)
            result = {"pair": number, "seed": seed, "half_life": half_life, "score": scores}
            scored.append(pd.DataFrame(result))
    pd.concat(scored).to_parquet(folder / f"{library}.parquet")
    if not tuning:
        print("{}")
        return
    states = [trial.state.name for trial in study.trials]
    print(
        json.dumps(
            {
                "settings": study.best_params,
                "tuning_score": study.best_value,
                "trials": len(states),
                "pruned": states.count("PRUNED"),
            }
        )
    )


def _read(folder: Path, names: list[str], order: dict) -> list[pd.DataFrame]:
    fitted, scored = (pd.read_parquet(folder / name) for name in names)
    for column in order["categories"]:
        known = sorted(fitted[column].dropna().unique())
        for table in (fitted, scored):
            table[column] = pd.Categorical(table[column].where(table[column].isin(known)), known)
    return [fitted, scored]


def _mean_auc(trial: optuna.Trial, library: str, tuning: list, order: dict) -> float:
    settings = SPACES[library](trial)
    scores = []
    for step, pair in enumerate(tuning):
        scores.append(roc_auc_score(pair[1][order["target"]], _fit_and_score(library, settings, pair, order, 0)))
        trial.report(float(np.mean(scores)), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return float(np.mean(scores))


def _lightgbm_space(trial: optuna.Trial) -> dict:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 50, 600, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
        "num_leaves": trial.suggest_int("num_leaves", 6, 128, log=True),
        "min_child_samples": trial.suggest_int("min_child_samples", 10, 500, log=True),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1),
        "subsample": trial.suggest_float("subsample", 0.4, 1),
        "reg_lambda": trial.suggest_float("reg_lambda", 1e-3, 100, log=True),
        "cat_smooth": trial.suggest_float("cat_smooth", 1, 300, log=True),
        "cat_l2": trial.suggest_float("cat_l2", 1, 100, log=True),
    }


def _catboost_space(trial: optuna.Trial) -> dict:
    return {
        "iterations": trial.suggest_int("iterations", 50, 400, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
        "depth": trial.suggest_int("depth", 3, 7),
        "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 1, 100, log=True),
        "random_strength": trial.suggest_float("random_strength", 0.1, 10, log=True),
        "bagging_temperature": trial.suggest_float("bagging_temperature", 0, 2),
        "max_ctr_complexity": trial.suggest_int("max_ctr_complexity", 1, 2),
        "rsm": trial.suggest_float("rsm", 0.3, 1),
    }


SPACES = {"lightgbm": _lightgbm_space, "catboost": _catboost_space}


def _fit_and_score(
    library: str, settings: dict, pair: list, order: dict, seed: int, half_life: float = 0
) -> np.ndarray:
    fitted, scored = pair
    weights = 0.5 ** (fitted["age_days"] / half_life) if half_life else None
    columns, truth = [*order["categories"], *order["numbers"]], fitted[order["target"]]
    if library == "lightgbm":
        model = lightgbm.LGBMClassifier(**settings, subsample_freq=1, random_state=seed, n_jobs=THREADS, verbose=-1)
        model.fit(fitted[columns], truth, sample_weight=weights)
    else:
        knobs = {"thread_count": THREADS, "verbose": False, "allow_writing_files": False, "random_seed": seed}
        model = catboost.CatBoostClassifier(**settings, **knobs, cat_features=order["categories"])
        fitted, scored = (_texts(table, order["categories"]) for table in pair)
        model.fit(fitted[columns], truth, sample_weight=weights)
    return model.predict_proba(scored[columns])[:, 1]


def _texts(table: pd.DataFrame, categories: list[str]) -> pd.DataFrame:
    """CatBoost takes no missing category: it becomes one more."""
    return table.assign(**{name: table[name].astype(object).fillna("missing").astype(str) for name in categories})


if __name__ == "__main__":
    main()
