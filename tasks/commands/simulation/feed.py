"""Stand before a product's own source and deliver what it delivers, but for a fault that a simulation asks for.

A simulation declares it as the source of its product, in a repository of its own, and leaves there the original entry
with the fault as `simulation.json`. So what is tested is the whole way from the source on, and no line of it knows.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import params
from tasks.commands.simulation.contracts import Fault
from tasks.params import Product
from tasks.rows.casting import parse_moment
from tasks.rows.keys import key_text
from tasks.rows.labels.windows import fit_windows
from tasks.runtime.files import read_json
from tasks.sources.fetch import fetch_whole

FILE = Path("simulation.json")
"""In the repository of a simulation with a fault: the original entry, and the fault."""
KM_PER_MILE = 1.609344
SEED = 0


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return what the product's own source has from `start` to `end`, with the fault of the simulation."""
    given = read_json(FILE)
    (name,) = given["products"]
    product = params.parse({"as_of": end.isoformat(), "products": given["products"]}).product(name)
    as_of = end - timedelta(days=product.predict.lead_days)
    return with_fault(fetch_whole(product, start, as_of), product, Fault.from_json(given["fault"]), as_of)


def with_fault(frame: pd.DataFrame, product: Product, fault: Fault, as_of: date) -> pd.DataFrame:
    """Return a delivery of an as_of as the fault leaves it; all of it where the fault is over, or to come.

    A feed that breaks delivers nothing new, labels that stop are missing from the first day on, poison reaches the
    labels that a training of this as_of learns from and not those that it is judged by.
    """
    days = event_days(frame, product)
    due = days + np.timedelta64(product.target.delay_days, "D")
    target = product.target.name

    def since(moments: np.ndarray, day: date) -> np.ndarray:
        """Return which are of a day or later. Shapes: datetime64[D] [n] -> bool [n]."""
        return np.asarray(moments >= np.datetime64(day, "D"))

    if fault.kind == "cut":
        next_day = fault.last + timedelta(days=1)
        known = without_labels(frame, target, since(due, next_day))
        return known[~since(days, product.scored_day(next_day))].reset_index(drop=True)
    if not fault.first <= as_of <= fault.last:
        return frame
    if fault.kind == "feed":
        return frame[~since(days, product.scored_day(fault.first))].reset_index(drop=True)
    if fault.kind == "labels":
        return without_labels(frame, target, since(due, fault.first))
    if fault.kind == "shift":
        new = since(days, product.scored_day(fault.first))
        column = pd.to_numeric(frame[str(fault.column)], errors="coerce")
        return frame.assign(**{str(fault.column): column.where(~new, column * KM_PER_MILE)})
    judged_days = 0
    labelled = days[frame[target].notna().to_numpy() & (due <= np.datetime64(as_of, "D"))]
    if product.split.by == "time" and len(labelled):
        age = (labelled.max() - labelled).astype(int)
        n_days = age.max().item() + 1
        judged_days = fit_windows(product, age, n_days, n_days)[0].test_days
    learnt = ~since(due, as_of - timedelta(days=judged_days - 1))
    return shuffled(frame, target, days, learnt, key_text(frame, list(product.key)))


def event_days(frame: pd.DataFrame, product: Product) -> np.ndarray:
    """Return the date of every row. Shapes: datetime64[D] [n]; NaT where a row has none that can be read."""
    return parse_moment(frame[product.time]).dt.tz_localize(None).to_numpy("datetime64[D]")


def without_labels(frame: pd.DataFrame, target: str, chosen: np.ndarray) -> pd.DataFrame:
    """Return the rows with no label where they are chosen. Shapes: bool [n]."""
    return frame.assign(**{target: frame[target].where(~chosen)}).reset_index(drop=True)


def shuffled(frame: pd.DataFrame, target: str, days: np.ndarray, chosen: np.ndarray, keys: pd.Series) -> pd.DataFrame:
    """Return the rows with the chosen labels exchanged among those of their day, the same way at every delivery."""
    label = frame[target].copy()
    known = chosen & label.notna().to_numpy()
    for day in np.unique(days[known]):
        places = np.flatnonzero(known & (days == day))
        places = places[np.argsort(keys.iloc[places].to_numpy(dtype=str), kind="stable")]
        label.iloc[places] = label.iloc[np.random.default_rng(SEED).permutation(places)].to_numpy()
    return frame.assign(**{target: label})
