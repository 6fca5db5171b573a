"""Forecasts of StatsForecast for the very rows that are asked: `python peer_ahead.py FOLDER`, under its own Python.

FOLDER/past.parquet has every series day by day (`series`, `day`, `value`), FOLDER/asked.parquet the rows to forecast
(`series`, `day`, `horizon_days`); FOLDER/order.json says `models`, `levels` and `delay_days`, how long after its day a
value is known. On each day every model is fitted to each series as known then, and asked for the days ahead. A day
without a value counts as 0; no forecast is below 0. FOLDER/forecasts.parquet gets `model`, the row's columns, `point`
and a column for each level; the processor's seconds of each model are printed as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

import pandas as pd
from statsforecast import StatsForecast
from statsforecast.models import MSTL, AutoARIMA, AutoETS, SeasonalNaive
from tqdm import tqdm

SEASON_DAYS = 7
MODELS = {
    "SeasonalNaive": SeasonalNaive(season_length=SEASON_DAYS),
    "AutoETS": AutoETS(season_length=SEASON_DAYS),
    "MSTL": MSTL(season_length=[SEASON_DAYS], trend_forecaster=AutoETS(model="ZZN")),
    "AutoARIMA": AutoARIMA(season_length=SEASON_DAYS),
}


def main() -> None:
    """Fit and forecast."""
    folder = Path(sys.argv[1])
    order = json.loads((folder / "order.json").read_text())
    past, asked = (pd.read_parquet(folder / f"{name}.parquet") for name in ("past", "asked"))
    table = past.pivot_table(index="day", columns="series", values="value", aggfunc="first").asfreq("D")
    found, seconds = [], dict.fromkeys(order["models"], 0.0)
    for day, rows in tqdm(asked.groupby("day"), desc="origins"):
        known = table.loc[: day - pd.Timedelta(days=order["delay_days"])]
        known = known[[name for name in rows["series"].unique() if known[name].notna().any()]]
        long = known.stack(future_stack=True).rename("y").reset_index().set_axis(["ds", "unique_id", "y"], axis=1)
        begun = long.groupby("unique_id")["y"].transform(lambda values: values.notna().cummax())
        long = long[begun].fillna({"y": 0.0})
        steps = int(rows["horizon_days"].max()) + order["delay_days"]
        for name in order["models"]:
            start = time.process_time()
            model = StatsForecast(models=[MODELS[name]], freq="D", n_jobs=int(os.environ.get("OMP_NUM_THREADS", "2")))
            levels = sorted({round(200 * abs(level - 0.5)) for level in order["levels"]} - {0})
            made = model.forecast(df=long, h=steps, level=levels).set_index(["unique_id", "ds"])
            seconds[name] += time.process_time() - start
            ahead = rows.assign(for_day=rows["day"] + pd.to_timedelta(rows["horizon_days"], unit="D"))
            at = made.reindex(pd.MultiIndex.from_frame(ahead[["series", "for_day"]]))
            columns = {"point": at[name]}
            for level in order["levels"]:
                side, width = ("lo", 0.5 - level) if level < 0.5 else ("hi", level - 0.5)
                columns[f"q{level}"] = at[f"{name}-{side}-{round(200 * width)}"] if width else at[name]
            values = {column: each.clip(lower=0).to_numpy() for column, each in columns.items()}
            found.append(rows.assign(model=name, **values))
    pd.concat(found, ignore_index=True).to_parquet(folder / "forecasts.parquet")
    print(json.dumps({name: round(each, 1) for name, each in seconds.items()}))


if __name__ == "__main__":
    main()
