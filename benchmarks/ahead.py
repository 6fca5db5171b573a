"""Numbers ahead beside StatsForecast: how many flights of an airline will be late tomorrow, in a week, in four weeks?

The product `late-flights-ahead` of params.yaml is taken through the stages at each date of AS_OF. Its held-out rows, of
28 evenings at horizons of 1, 7 and 28 days, are forecast by StatsForecast too, which is fitted anew on every evening to
all that was known of each series then; ours, and the seasonal naive forecast, were trained once, before the first of
these evenings. MAE is that of the number that is published, which is a median. Intervals are of the
pigeonhole bootstrap: series and evenings are drawn with replacement, each by itself, since the forecasts of a series
have much in common, and so have those of an evening. That of a difference is paired.

What was forecast at a date is kept below .lamplighter/ahead, so that a run can be stopped and goes on;
LAMPLIGHTER_AHEAD=2013-11-30 takes this date alone.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import peers
from benchmarks.breadth.parts import code_revision
from benchmarks.report import Result, Target
from model.heads.measures import pinball
from tasks import params
from tasks.ingest import ingest
from tasks.params import HORIZON, Product
from tasks.pretrain import pretrain
from tasks.rows import model_inputs
from tasks.runtime.paths import Paths
from tasks.sources import late_flights
from tasks.split import split
from tasks.train import train
from tasks.training.held_out.seasonal_naive import naive_scores
from tasks.validate import validate

PRODUCT = "late-flights-ahead"
AS_OF = ("2013-09-15", "2013-10-23", "2013-11-30")
"""Their test windows do not overlap."""
MODELS = ("AutoETS", "MSTL", "SeasonalNaive")
OURS, NAIVE, POINT_ALONE = "Lamplighter", "own baseline: seasonal naive", "Lamplighter without quantiles"
N_RESAMPLES = 1000
Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out rows of all dates, and what each says of them."""

    rows: pd.DataFrame
    """`series`, `day`, `horizon_days` and the label."""
    y: np.ndarray
    scores: Scores
    """The number and its quantiles [n, 1 + levels], of a model without quantiles [n, 1]."""
    seconds: dict[str, float]
    """Of a processor: to train, or to fit and forecast."""


def run() -> Result:
    """Measure all dates, or those that LAMPLIGHTER_AHEAD names."""
    product, dates = params.load().product(PRODUCT), asked()
    found = of_dates(product, dates)
    levels, horizons = product.predict.quantiles, product.predict.horizons
    tables = {
        f"{title}, lower is better": [
            {"model": name, **{_of(days): text for days, text in row.items()}, "seconds": round(found.seconds[name], 0)}
            for name, row in _table(found, loss, horizons).items()
        ]
        for title, loss in (("MAE", absolute_error), ("pinball", lambda y, each: mean_pinball(y, each, levels)))
    }
    n_series, n_days = found.rows["series"].nunique(), found.rows["day"].nunique()
    notes = [f"As of {', '.join(dates)}: {len(found.y):,} held-out rows of {n_series} series on {n_days} evenings."]
    return Result(name="ahead", tables=tables, targets=_targets(found, levels), notes=notes)


def asked() -> tuple[str, ...]:
    """Return the dates to measure."""
    return tuple(filter(None, os.environ.get("LAMPLIGHTER_AHEAD", "").split(","))) or AS_OF


def of_dates(product: Product, dates: tuple[str, ...]) -> HeldOut:
    """Return what all say of the held-out rows of these dates together."""
    parts = [held_out(product, date.fromisoformat(each)) for each in dates]
    return HeldOut(
        rows=pd.concat([each.rows for each in parts], ignore_index=True),
        y=np.concatenate([each.y for each in parts]),
        scores={name: np.concatenate([each.scores[name] for each in parts]) for name in parts[0].scores},
        seconds={name: sum(each.seconds[name] for each in parts) for name in parts[0].seconds},
    )


def held_out(product: Product, as_of: date) -> HeldOut:
    """Return what all say of the held-out rows of a date: as kept, or else ours and then StatsForecast's, anew."""
    folder = peers.HOME / "ahead" / f"{as_of}-{code_revision()}"
    ours = folder / "ours"
    if not (ours / "rows.parquet").exists():
        _keep(ours, *_trained(product, as_of))
    table, scores, seconds = _kept(ours)
    of_peers = folder / "peers"
    if not (of_peers / "rows.parquet").exists():
        _keep(of_peers, table, *_forecasts(product, table))
    _, forecasts, seconds_of_peers = _kept(of_peers)
    return HeldOut(
        rows=table,
        y=table[product.target.name].to_numpy("float64"),
        scores=scores | forecasts,
        seconds=seconds | seconds_of_peers,
    )


def _trained(product: Product, as_of: date) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, float]]:
    """Train at a date with and without quantiles; return the held-out rows, and scores and seconds of each."""
    alone = replace(product, predict=replace(product.predict, quantiles=()))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(_workspace(Path(folder))):
        seconds, scores = {}, {}
        for stage in (ingest, validate, split):
            stage(product, as_of)
        rows = model_inputs.split_part(Paths(product.name).splits, "test", product)
        for name, each in ((POINT_ALONE, alone), (OURS, product)):
            start = time.process_time()
            for stage in (pretrain, train):
                stage(each, as_of)
            seconds[name] = time.process_time() - start
            scores[name] = _ours(each, rows)
        scores[NAIVE], seconds[NAIVE] = naive_scores(product, Paths(product.name).splits, rows), 0.0
        table = rows.columns(["series", "day", HORIZON, product.target.name])
    return table, scores, seconds


def _keep(folder: Path, table: pd.DataFrame, scores: Scores, seconds: Mapping[str, float]) -> None:
    """Write what was found; rows.parquet comes last, and says that all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(scores)
    for number, name in enumerate(names):
        np.save(folder / f"{number}.npy", scores[name])
    (folder / "found.json").write_text(json.dumps({name: seconds[name] for name in names}))
    table.to_parquet(folder / "rows.parquet")


def _kept(folder: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, float]]:
    """Return what `_keep` wrote."""
    seconds = json.loads((folder / "found.json").read_text())
    scores = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(seconds)}
    return pd.read_parquet(folder / "rows.parquet"), scores, seconds


def absolute_error(y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the error of each row's number. Shapes: [n], [n, o] -> [n]."""
    return np.abs(y - scores[:, 0])


def mean_pinball(y: np.ndarray, scores: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Return the mean pinball loss of each row's quantiles, NaN without such. Shapes: [n], [n, o] -> [n]."""
    return pinball(y, scores[:, 1:], levels).mean(axis=1) if scores.shape[1] > 1 else np.full(len(y), np.nan)


def _workspace(folder: Path) -> Path:
    for name in ("tasks", "model", "params.yaml", "constraints.txt"):
        (folder / name).symlink_to(Path(__file__).resolve().parent.parent / name)
    return folder


def _ours(product: Product, rows: model_inputs.SplitPart) -> np.ndarray:
    from model.scoring.scorer import TorchScorer

    found = model_inputs.scores(TorchScorer(Paths(product.name).trained), replace(rows, product=product))
    return found.reshape(len(found), -1).astype("float64")


def _forecasts(product: Product, table: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return what StatsForecast says of the rows, and its seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        past = late_flights.counts(None, date(2013, 12, 31)).rename(columns={product.target.name: "value"})
        past.assign(day=pd.to_datetime(past["day"]))[["series", "day", "value"]].to_parquet(folder / "past.parquet")
        table[["series", "day", HORIZON]].to_parquet(folder / "asked.parquet")
        levels = list(product.predict.quantiles)
        order = {"models": MODELS, "levels": levels, "delay_days": product.target.delay_days}
        (folder / "order.json").write_text(json.dumps(order))
        seconds = peers.run("ahead", folder, pins="ahead.txt", OMP_NUM_THREADS="1")
        found = pd.read_parquet(folder / "forecasts.parquet")
    wanted = pd.MultiIndex.from_frame(table[["series", "day", HORIZON]])
    columns = ["point", *(f"q{level}" for level in levels)]
    scores = {
        f"StatsForecast {name}": of_model.set_index(["series", "day", HORIZON]).reindex(wanted)[columns].to_numpy()
        for name, of_model in found.groupby("model")
    }
    return scores, {f"StatsForecast {name}": each for name, each in seconds.items()}


def _table(found: HeldOut, loss: Callable[..., np.ndarray], horizons: tuple[int, ...]) -> dict[str, dict[int, str]]:
    """Return for each model its mean loss by horizon, 0 for all, and how far it is behind ours."""
    series, day = (np.unique(found.rows[name], return_inverse=True)[1] for name in ("series", "day"))
    ours, table = loss(found.y, found.scores[OURS]), {}
    for name, scores in found.scores.items():
        own = loss(found.y, scores)
        if np.isnan(own).all():
            continue
        table[name] = {}
        for days in (0, *horizons):
            chosen = (found.rows[HORIZON] == days).to_numpy() if days else np.ones(len(own), bool)
            measured = own if name == OURS else own - ours
            low, high = pigeonhole_interval(measured[chosen], series[chosen], day[chosen])
            interval = f"{low:.3f} to {high:.3f}" if name == OURS else f"behind ours by {low:+.3f} to {high:+.3f}"
            table[name][days] = f"{own[chosen].mean():.3f} ({interval})"
    return table


def pigeonhole_interval(values: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean when rows and columns of a table are drawn with replacement, each by itself.

    Source: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2).
    Shapes: [n], int [n] twice, the row and the column of each value.
    """
    random, means = np.random.default_rng(0), []
    n_rows, n_columns = row.max() + 1, column.max() + 1
    for _ in range(N_RESAMPLES):
        of_row = np.bincount(random.integers(n_rows, size=n_rows), minlength=n_rows)
        of_column = np.bincount(random.integers(n_columns, size=n_columns), minlength=n_columns)
        weight = of_row[row] * of_column[column]
        means.append((weight @ values) / weight.sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _of(days: int) -> str:
    return f"{days} days ahead" if days else "all"


def _targets(found: HeldOut, levels: tuple[float, ...]) -> list[Target]:
    means: dict[str, dict[str, Any]] = {}
    for name, scores in found.scores.items():
        losses = absolute_error(found.y, scores), mean_pinball(found.y, scores, levels)
        means[name] = {"MAE": losses[0].mean(), "pinball": losses[1].mean()}
    targets = []
    for metric in ("MAE", "pinball"):
        best = min(value[metric] for name, value in means.items() if name.startswith("StatsForecast"))
        ours = means[OURS][metric]
        targets.append(
            Target(
                name=f"{metric} of all horizons",
                wanted=f"below {best:.3f}, the best of StatsForecast",
                met=bool(ours < best),
                measured=f"{ours:.3f}",
            )
        )
    return targets
