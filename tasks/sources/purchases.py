"""Deliver the purchases of CDNOW, a shop for music, from the package `Lifetimes`, and its customers at month ends.

Source: Fader and Hardie, "Forecasting Repeat Sales at CDNOW: A Case Study", Interfaces 31 (2001): 69,659 purchases of
the 23,570 people who first bought in the first quarter of 1997, up to the end of June 1998.
"""

from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.sources import package_folder

HORIZON_DAYS = 30
"""Days after a month's end in which a customer buys or does not."""


def purchases(start: date | None, end: date) -> pd.DataFrame:
    """Return the purchases from `start` to `end`, inclusive, one row each, in the order of the file."""
    found = _purchases()
    days = found["day"]
    chosen = found[(days <= np.datetime64(end)) & (start is None or days >= np.datetime64(start))]
    return chosen.assign(day=chosen["day"].dt.strftime("%Y-%m-%d")).reset_index(drop=True)


def customers(start: date | None, end: date) -> pd.DataFrame:
    """Return everyone who has bought, at each month's end from `start` to `end`; whether they buy in the 30 days after.

    `buys` is empty where these days have not passed on `end`.
    """
    bought = _purchases()
    first = bought.groupby("customer", sort=True)["day"].min()
    parts = []
    for month_end in pd.date_range(start or bought["day"].min(), end, freq="ME"):
        until = month_end + pd.Timedelta(days=HORIZON_DAYS)
        known = first.index[first <= month_end].to_series()
        buyers = bought["customer"][(bought["day"] > month_end) & (bought["day"] <= until)]
        buys = known.isin(buyers).astype("Int8") if until <= pd.Timestamp(end) else pd.NA
        parts.append(pd.DataFrame({"customer": known, "day": f"{month_end:%Y-%m-%d}", "buys": buys}))
    empty = pd.DataFrame({"customer": [], "day": [], "buys": []})
    return pd.concat(parts, ignore_index=True) if parts else empty


@cache
def _purchases() -> pd.DataFrame:
    names = ["customer", "day", "discs", "dollars"]
    cells = pd.read_csv(_package_data(), sep=r"\s+", skiprows=1, names=names, dtype={"customer": str, "day": str})
    return cells.assign(day=pd.to_datetime(cells["day"], format="%Y%m%d"))


def _package_data() -> Path:
    return package_folder("tasks.sources.purchases", "Lifetimes") / "datasets" / "CDNOW_master.txt"
