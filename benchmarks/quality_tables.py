"""Held-out quality on tables beside LightGBM and CatBoost: flights' delays, and a public table of tumours.

**Flights.** On the evening of each of six dates every model is fitted on the flights of the `split.train_days` days
whose truth is known by then and scores the flights of the seven days that follow. All see the same rows and columns:
those of params.yaml's entry, the record of past delays included. Settings are one set for all six dates and were
chosen on other dates: the trees' by Optuna on TUNING when this runs; ours and the columns by hand when the entry was
written, on OTHERS: the other weeks of the year, of which the same is shown, with one seed.
Ours lets the weight of a row fade with its age, as params.yaml says; the trees, whose libraries have no setting for
that, are shown without and with the same weights.
Trees get categories as categories, context (the weather of the evening before) as numbers, a time as minute of day and
day of week; and here the day of week besides, which ours does not read: they are the better for it.

**Tumours.** Breast Cancer Wisconsin (Diagnostic): 569 rows of 30 numbers, which come with scikit-learn; five stratified
folds. LightGBM's settings are chosen on other folds, ours are written here. Street, Wolberg and Mangasarian (1993)
report an accuracy of 97.5 % by cross-validation.

An interval is Student's over the dates or folds, each averaged over its seeds; that of a difference is paired.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from tqdm import tqdm

from benchmarks import peers
from benchmarks.intervals import student_interval, with_interval
from benchmarks.report import Result, Target
from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import KINDS
from model.network.network import Network
from model.network.store import save_model
from model.scoring.scorer import TorchScorer
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target as Truth
from model.training.fit import LabelledRows
from model.training.train import pretrain, train, train_again
from tasks import params
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.sources import flights as flights_source

AS_OF = ("2013-03-31", "2013-05-31", "2013-07-31", "2013-09-30", "2013-10-31", "2013-11-30")
TUNING = ("2013-06-30", "2013-08-15", "2013-10-15")
OTHERS = tuple(
    f"2013-{month:02}-{day:02}"
    for month, days in {
        **{2: (28,), 3: (8, 15, 22), 4: (7, 15, 22, 30), 5: (7, 14, 21), 6: (7, 15, 22, 30), 7: (7, 15, 22)},
        **{8: (7, 15, 22, 31), 9: (7, 15, 22), 10: (7, 15, 22), 11: (7, 15, 22), 12: (7, 15, 22)},
    }.items()
    for day in days
)
"""As many weeks as there is room for between those of AS_OF, once there are two months to learn from."""
TEST_DAYS = 7
SEEDS = 3
WANTED_AUC = 0.69
TRIALS = 30
OURS = "Lamplighter"
PEERS = {"lightgbm": "LightGBM, tuned", "catboost": "CatBoost, tuned"}
PLAIN = {"lightgbm": "LightGBM, schedule and plane columns, 60 days"}
PLAIN_DAYS = 60
PLAIN_COLUMNS = {
    **dict.fromkeys(("carrier", "origin", "destination"), "category"),
    **dict.fromkeys(("manufacturer", "plane_model"), "category"),
    **dict.fromkeys(("plane_age_years", "seats", "distance_miles", "scheduled_minutes"), "number"),
    "scheduled_departures_in_hour": "number",
    **dict.fromkeys(("scheduled_departure", "scheduled_arrival"), "time"),
}
"""The columns of the figure to start from, which the trees have without the record of past delays."""
N_FOLDS = 5
TUMOUR_NETWORK = NetworkSettings(d_model=32, n_heads=4, d_feedforward=64, dropout=0.1)
TUMOUR_TRAINING = TrainingSettings(epochs=10.0, learning_rate=2e-3, keep="last")

Pair = tuple[pd.DataFrame, pd.DataFrame]
"""Rows to fit on and rows to score."""
Scores = dict[str, list[list[np.ndarray]]]
"""Model to its scores, per pair and seed."""


def flights() -> Result:
    """Measure AUC on the days after the six dates, Lamplighter's and the trees'."""
    product = params.load().product("flight-delays")
    rows = known_flights()
    days = product.split.train_days
    assert days is not None
    pairs, tuning = ([around(rows, as_of, days) for as_of in dates] for dates in (AS_OF + OTHERS, TUNING))
    seeds = [SEEDS] * len(AS_OF) + [1] * len(OTHERS)
    progress = tqdm(list(zip(pairs, seeds, strict=True)), desc="flights, ours", unit="week")
    scores: Scores = {OURS: [[_delay_scores(product, *pair, seed) for seed in range(n)] for pair, n in progress]}
    fading = product.model.train.half_life_days
    order = {"target": "late", "seeds": seeds, "trials": TRIALS, "half_lives": [0.0, fading] if fading else [0.0]}
    columns = {**product.columns, "scheduled_departure": "time"}  # in place of its minute
    del columns["scheduled_departure_minute"]
    notes = _trees(scores, PEERS, order, columns, tuning, pairs)
    plain = [around(rows, as_of, PLAIN_DAYS) for as_of in AS_OF + OTHERS]
    _trees(scores, PLAIN, {**order, "trials": 0, "half_lives": [0.0]}, PLAIN_COLUMNS, [], plain)
    six = slice(None, len(AS_OF))
    aucs, others = (
        _qualities({name: scored[part] for name, scored in scores.items()}, pairs[part], "late", roc_auc_score)
        for part in (six, slice(len(AS_OF), None))
    )
    mean = float(aucs[OURS].mean())
    wanted = Target(
        name="flight-delays: mean AUC",
        wanted=f"at least {WANTED_AUC}",
        measured=f"{mean:.4f}",
        met=mean >= WANTED_AUC,
    )
    return Result(
        name="quality",
        tables={
            f"flight-delays: AUC on the {TEST_DAYS} days after each date": _compared(aucs, AS_OF),
            f"flight-delays: AUC on the {TEST_DAYS} days after the {len(OTHERS)} other dates": _compared(others),
        },
        targets=[wanted, *(_better("flight-delays", aucs, name) for name in PEERS.values())],
        notes=notes,
    )


def tumours() -> Result:
    """Measure AUC of malignancy on held-out folds, Lamplighter's and the trees'."""
    rows = load_breast_cancer(as_frame=True).frame
    kinds = dict.fromkeys((name for name in rows if name != "target"), "number")
    pairs, tuning = _folds(rows, seed=0), _folds(rows, seed=1)
    scores: Scores = {OURS: [[_tumour_scores(kinds, *pair, seed)] for seed, pair in enumerate(pairs)]}
    order = {"target": "target", "seeds": [1] * len(pairs), "trials": TRIALS, "half_lives": [0.0]}
    notes = _trees(scores, {"lightgbm": PEERS["lightgbm"]}, order, kinds, tuning, pairs)
    aucs, shares = (_qualities(scores, pairs, "target", metric) for metric in (roc_auc_score, _accuracy))
    names = tuple(f"fold {number}" for number in range(1, len(pairs) + 1))
    return Result(
        name="quality",
        tables={
            "tumours: AUC on each fold": _compared(aucs, names),
            "tumours: accuracy": _compared(shares, names),
        },
        targets=[_better("tumours: AUC", aucs, PEERS["lightgbm"], within=True)],
        notes=notes,
    )


def known_flights() -> pd.DataFrame:
    """Return all rows of the source whose label is known by the end of the year."""
    rows = flights_source.rows(None, date(2013, 12, 31))
    return rows[rows["late"].notna()]


def around(rows: pd.DataFrame, as_of: str, train_days: int) -> Pair:
    """Return the rows whose label is known on as_of, back to `train_days`, and those of the days after it."""
    day = date.fromisoformat(as_of)

    def between(first: int, last: int) -> pd.DataFrame:
        ends = [str(day + timedelta(days=days)) for days in (first, last)]
        return rows[rows["date"].between(*ends)].reset_index(drop=True)

    return between(-train_days, -1), between(1, TEST_DAYS)


def _ages(rows: pd.DataFrame) -> np.ndarray:
    return model_inputs.age_days(rows["date"].to_numpy("datetime64[s]"))


def _folds(rows: pd.DataFrame, seed: int) -> list[Pair]:
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(rows, rows["target"])
    return [
        (rows.iloc[fitted].reset_index(drop=True), rows.iloc[held].reset_index(drop=True)) for fitted, held in folds
    ]


def _delay_scores(product: Product, fitted: pd.DataFrame, scored: pd.DataFrame, seed: int) -> np.ndarray:
    network, features = trained_on_flights(product, fitted, _newest(fitted), replace(product.model.train, seed=seed))
    return scores_of(network, features, model_inputs.inputs(scored, product))


def trained_on_flights(
    product: Product, fitted: pd.DataFrame, held: pd.DataFrame, training: TrainingSettings, **more: Any
) -> tuple[Network, Features]:
    """Return the product's own network, fitted on flights and validated on others; `more` is for `_trained`."""
    classes = model_inputs.classes(fitted, product)
    (table, y), validation = (
        (model_inputs.inputs(rows, product), model_inputs.targets(rows, product, classes)) for rows in (fitted, held)
    )
    settings = product.model
    return _trained(
        product.columns,
        Truth.fit("binary", classes, y),
        (table, y),
        validation,
        settings.network_settings(),
        replace(settings.pretrain, seed=training.seed) if settings.init == "pretrain" else None,
        training,
        age_days=_ages(fitted),
        **more,
    )


def _tumour_scores(kinds: dict[str, str], fitted: pd.DataFrame, scored: pd.DataFrame, seed: int) -> np.ndarray:
    def arrays(rows: pd.DataFrame) -> dict[str, np.ndarray]:
        return {name: rows[name].to_numpy(float) for name in kinds}

    learnt, validation = ((arrays(rows), rows["target"].to_numpy(int)) for rows in (fitted, _newest(fitted)))
    target, training = Truth.fit("binary", ("0", "1"), learnt[1]), replace(TUMOUR_TRAINING, seed=seed)
    return scores_of(*_trained(kinds, target, learnt, validation, TUMOUR_NETWORK, None, training), arrays(scored))


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Use the last eighth of the rows that are fitted on as validation rows too."""
    return rows.iloc[len(rows) * 7 // 8 :]


def _trained(
    kinds: dict[str, str],
    target: Truth,
    fitted: tuple[Table, np.ndarray],
    held: tuple[Table, np.ndarray],
    settings: NetworkSettings,
    pretraining: PretrainingSettings | None,
    training: TrainingSettings,
    first: Network | None = None,
    age_days: np.ndarray | None = None,
    **more: Any,
) -> tuple[Network, Features]:
    """Return a network and its features; with `first`, by the second training after that network's, without `held`."""
    table, y = fitted
    features = Features.fit(kinds, table, y, target.task, max_tokens=settings.max_tokens)
    encoded = features.encode(table)
    if pretraining:
        start, _ = pretrain(features, encoded, settings, pretraining)
    else:
        start = Network(settings, features.sizes, seed=training.seed)
    network, rows = start.with_head(target, settings, seed=training.seed), LabelledRows(encoded, y, age_days)
    if first is None:
        network, _ = train(network, features, rows, LabelledRows(features.encode(held[0]), held[1]), training, **more)
    else:
        network, _ = train_again(first, network, features, rows, training, **more)
    return network, features


def scores_of(network: Network, features: Features, scored: Table) -> np.ndarray:
    """Score rows by a network, through its own files. Shapes: float32 [n]."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), network, features)
        return TorchScorer(Path(folder)).score(scored)


def _trees(
    scores: Scores,
    libraries: Mapping[str, str],
    order: dict[str, Any],
    kinds: dict[str, str],
    tuning: list[Pair],
    final: list[Pair],
) -> list[str]:
    """Add the scores of each library of trees; return the settings that tuning found."""
    numbers = [name for name, kind in kinds.items() if KINDS[kind].cells == "float64"]
    numbers += [part for name, kind in kinds.items() if kind == "time" for part in _time_parts(name)]
    notes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        order = {
            **order,
            "categories": [name for name, kind in kinds.items() if kind == "category"],
            "numbers": numbers,
            "tuning": [_written(folder, f"tuning-{number}", pair, kinds) for number, pair in enumerate(tuning)],
            "final": [_written(folder, f"final-{number}", pair, kinds) for number, pair in enumerate(final)],
        }
        (folder / "order.json").write_text(json.dumps(order))
        for library, title in libraries.items():
            report = peers.run("trees", folder, library)
            if tuning:
                notes.append(f"{title}: {json.dumps(report)}")
            of = pd.read_parquet(folder / f"{library}.parquet").groupby(["half_life", "pair", "seed"])["score"]
            for days in order["half_lives"]:
                scores[f"{title}, rows fading as ours" if days else title] = [
                    [of.get_group((days, pair, seed)).to_numpy() for seed in range(seeds)]
                    for pair, seeds in enumerate(order["seeds"])
                ]
    return notes


def _written(folder: Path, name: str, pair: Pair, kinds: dict[str, str]) -> list[str]:
    """Return the names of the files that hold the pair as trees read it: a time becomes two numbers."""
    files = []
    for part, rows in zip(("fitted", "scored"), pair, strict=True):
        parts = {}
        for column in (name for name, kind in kinds.items() if kind == "time"):
            minute, weekday = _time_parts(column)
            parts[minute] = rows[column].dt.hour * 60 + rows[column].dt.minute
            parts[weekday] = rows[column].dt.day_of_week
        if "date" in rows:
            parts["age_days"] = pd.Series(_ages(rows))
        rows.assign(**parts).to_parquet(folder / f"{name}-{part}.parquet")
        files.append(f"{name}-{part}.parquet")
    return files


def _time_parts(column: str) -> tuple[str, str]:
    return f"{column}_minute", f"{column}_weekday"


def _qualities(scores: Scores, pairs: list[Pair], target: str, metric: Any) -> dict[str, np.ndarray]:
    """Return each model's metric. Shapes: float64 [pairs, seeds]."""
    return {
        name: np.array(
            [
                [metric(scored[target], values) for values in seeds]
                for (_, scored), seeds in zip(pairs, by_pair, strict=True)
            ]
        )
        for name, by_pair in scores.items()
    }


def _accuracy(truth: pd.Series, scores: np.ndarray) -> float:
    return float(((scores >= 0.5) == truth.to_numpy()).mean())


def _compared(qualities: dict[str, np.ndarray], names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return each model's mean and how far Lamplighter is from it, after the value for each pair that has a name."""
    rows = []
    for model, quality in qualities.items():
        by_pair = quality.mean(axis=1)
        rows.append(
            {
                "model": model,
                **{name: float(value) for name, value in zip(names, by_pair, strict=False)},
                "mean": float(by_pair.mean()),
                "95 % interval": "{:.4f} to {:.4f}".format(*student_interval(by_pair)),
                "ours is better by": "" if model == OURS else _difference(qualities, model),
            }
        )
    return rows


def _difference(qualities: dict[str, np.ndarray], peer: str) -> str:
    by_pair = (qualities[OURS].mean(axis=1)) - qualities[peer].mean(axis=1)
    return with_interval(by_pair)


def _better(table: str, qualities: dict[str, np.ndarray], peer: str, within: bool = False) -> Target:
    """Return the target of being better, or `within` the interval of the paired difference at least as good."""
    by_pair = (qualities[OURS].mean(axis=1)) - qualities[peer].mean(axis=1)
    bound = student_interval(by_pair)[1] if within else by_pair.mean()
    wanted = f"{'equal to or better than' if within else 'better than'} {peer}"
    return Target(name=table, wanted=wanted, measured=_difference(qualities, peer), met=bool(bound > 0))
