"""Peers of whether a customer buys in the next days: BG/NBD, and boosted trees on counts that a person makes."""

import numpy as np
import pandas as pd
from matrix.data import SEED, Data

HORIZON_DAYS = 30


class Log:
    """The purchases, and what is known of customers on a day."""

    def __init__(self, data: Data) -> None:
        found = data.source("purchases")
        found = found.assign(day=pd.to_datetime(found["day"])).groupby(["customer", "day"], as_index=False)
        self.purchases = found.agg(dollars=("dollars", "sum"), discs=("discs", "sum")).sort_values("day")

    def known(self, rows: pd.DataFrame, count: object) -> np.ndarray:
        """Return what `count(purchases until a day, day)`, a frame by customer, says of each row. Shapes: [n, m]."""
        days, parts = pd.to_datetime(rows["day"]), []
        for day in days.unique():
            of_day = rows["customer"][days == day]
            table = count(self.purchases[self.purchases["day"] <= day], day)
            parts.append(table.reindex(of_day.to_numpy()).set_axis(of_day.index))
        return pd.concat(parts).loc[rows.index].to_numpy(float)


def summary(purchases: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """Return repeat purchases, days from the first to the last, and days since the first."""
    of = purchases.groupby("customer")["day"].agg(["min", "max", "size"])
    frame = {"frequency": of["size"] - 1, "recency": (of["max"] - of["min"]).dt.days, "T": (day - of["min"]).dt.days}
    return pd.DataFrame(frame)


class BgNbd:
    """BG/NBD of lifetimes, fitted to what is known on the newest training day. Source: Fader, Hardie and Lee 2005.

    Rows are scored by the expected number of purchases, which orders customers as the probability of any does.
    """

    def __init__(self, data: Data) -> None:
        from lifetimes import BetaGeoFitter

        self.log = Log(data)
        newest = pd.to_datetime(data.fitted["day"]).max()
        known = summary(self.log.purchases[self.log.purchases["day"] <= newest], newest)
        self.model = BetaGeoFitter(penalizer_coef=0.001).fit(known["frequency"], known["recency"], known["T"])

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the expected purchases of the next days."""
        frequency, recency, age = self.log.known(rows, summary).T
        model = self.model.conditional_expected_number_of_purchases_up_to_time
        return np.asarray(model(HORIZON_DAYS, frequency, recency, age))


def counts(purchases: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """Return what a person counts: purchases, discs and dollars of several spans, and days between them."""
    found = summary(purchases, day).assign(since=lambda table: table["T"] - table["recency"])
    found["mean_gap"] = found["recency"] / found["frequency"].clip(lower=1)
    found["since_in_gaps"] = found["since"] / found["mean_gap"].clip(lower=1)
    for days in (30, 90, 180, 10_000):
        recent = purchases[purchases["day"] > day - pd.Timedelta(days=days)].groupby("customer")
        table = recent.agg(n=("day", "size"), dollars=("dollars", "sum"), discs=("discs", "sum"))
        found = found.join(table.add_suffix(f"_{days}"))
    last = purchases.groupby("customer").last()
    return found.fillna(0).join(last[["dollars", "discs"]].add_suffix("_last"))


class LightGBM:
    """LightGBM on those counts, with trees until the validation rows' loss falls no more."""

    def __init__(self, data: Data) -> None:
        import lightgbm

        self.log = Log(data)
        inputs, day = self.log.known(data.fitted, counts), pd.to_datetime(data.fitted["day"])
        later = (day == day.max()).to_numpy()
        settings = {"objective": "binary", "learning_rate": 0.03, "num_leaves": 15, "min_data_in_leaf": 100}
        settings |= {"verbosity": -1, "num_threads": 1, "seed": SEED, "deterministic": True}
        train, val = (lightgbm.Dataset(inputs[rows], data.y[rows]) for rows in (~later, later))
        stop = [lightgbm.early_stopping(40, verbose=False)]
        n_trees = lightgbm.train(settings, train, 1000, [val], callbacks=stop).best_iteration
        self.model = lightgbm.train(settings, lightgbm.Dataset(inputs, data.y), n_trees)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability that they buy."""
        return self.model.predict(self.log.known(rows, counts), num_threads=1)


PEERS = {"BG/NBD (lifetimes)": BgNbd, "LightGBM on counts": LightGBM}
