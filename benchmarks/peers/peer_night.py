"""A night done by hand: `python peer_night.py ENGINE AS_OF`, in the folder with orders.parquet, under our own Python.

What a script of a hundred lines does with each engine: read the export, find the rows whose keys are not stored, check
them, store valid and quarantined ones apart, and write the last days with their labels for a training. pandas reads the
whole export and the stored keys, as most scripts do; Great Expectations judges all rows on pandas, as its
tutorials do; DuckDB and Polars stream, and judge the new rows alone. None of them knows late rows, corrected labels, or
what was known when: they do less than the stages.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.nights.orders import FILE, MAX_DISTANCE_KM, MAX_WEIGHT_KG, SERVICES

STORED = Path("stored")
TRAINED_DAYS = 74
CHECKS = (
    f"service in ({', '.join(map(repr, SERVICES))}) and weight_kg between 0 and {MAX_WEIGHT_KG} "
    f"and distance_km between 0 and {MAX_DISTANCE_KM} and late in (0, 1)"
)
MIN_SHARE_OF_DEPOTS = 0.99


def with_pandas(as_of: str) -> int:
    """Read everything, check the new rows with masks."""
    new = _new_with_pandas(as_of)
    assert new["depot"].notna().mean() >= MIN_SHARE_OF_DEPOTS
    is_valid = (
        new["service"].isin(SERVICES)
        & new["weight_kg"].between(0, MAX_WEIGHT_KG)
        & new["distance_km"].between(0, MAX_DISTANCE_KM)
        & new["late"].isin([0, 1])
    )
    _store_with_pandas(new, is_valid, as_of)
    return len(new)


def with_great_expectations(as_of: str) -> int:
    """Read everything, and let Great Expectations judge all rows, for which of them are bad."""
    import great_expectations as gx
    import pandas as pd

    new = _new_with_pandas(as_of)
    rows = pd.concat([*(pd.read_parquet(file) for file in sorted(STORED.glob("*/*.parquet"))), new], ignore_index=True)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("orders")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": rows})
    suite = gx.ExpectationSuite(
        name="orders",
        expectations=[
            gx.expectations.ExpectColumnValuesToNotBeNull(column="depot", mostly=MIN_SHARE_OF_DEPOTS),
            gx.expectations.ExpectColumnValuesToBeInSet(column="service", value_set=SERVICES),
            gx.expectations.ExpectColumnValuesToBeBetween(column="weight_kg", min_value=0, max_value=MAX_WEIGHT_KG),
            gx.expectations.ExpectColumnValuesToBeBetween(column="distance_km", min_value=0, max_value=MAX_DISTANCE_KM),
            gx.expectations.ExpectColumnValuesToBeInSet(column="late", value_set=[0, 1]),
        ],
    )
    judged = batch.validate(suite, result_format="COMPLETE")
    bad = {row for result in judged.results[1:] for row in result.result.get("unexpected_index_list") or []}
    is_valid = ~rows.index.isin(bad)[len(rows) - len(new) :]
    _store_with_pandas(new, is_valid, as_of)
    return len(new)


def with_duckdb(as_of: str) -> int:
    """Stream the days after the newest stored one; DuckDB joins and checks."""
    import duckdb

    base = duckdb.connect()
    base.execute("set memory_limit = '1GB'")
    base.execute("set preserve_insertion_order = false")
    known = f"where day <= date '{as_of}'"
    if list(STORED.glob("*/*.parquet")):
        base.execute(f"create view stored as select * from '{STORED}/*/*.parquet'")
        known += (
            " and day >= (select max(day) from stored) - interval 7 day"
            " and order_id not in (select order_id from stored)"
        )
    _make_folders()
    base.execute(f"create table new as select *, ({CHECKS}) as is_valid from '{FILE}' {known}")
    n_rows, share = base.execute("select count(*), avg((depot is not null)::int) from new").fetchone()
    assert share >= MIN_SHARE_OF_DEPOTS
    for name, condition in (("valid", "is_valid"), ("quarantine", "not is_valid")):
        columns = f"select * exclude (is_valid) from new where {condition}"
        base.execute(f"copy ({columns}) to '{STORED}/{name}/{as_of}.parquet'")
    trained = f"select * from '{STORED}/valid/*.parquet' where day > date '{as_of}' - {TRAINED_DAYS} order by order_id"
    base.execute(f"copy ({trained}) to 'train.parquet'")
    return n_rows


def with_polars(as_of: str) -> int:
    """Stream the days after the newest stored one; Polars joins and checks."""
    from datetime import date, timedelta

    import polars as pl

    known = date.fromisoformat(as_of)
    export = pl.scan_parquet(FILE).filter(pl.col("day") <= known)
    if list(STORED.glob("*/*.parquet")):
        stored = pl.scan_parquet(f"{STORED}/*/*.parquet")
        newest = stored.select(pl.col("day").max()).collect(engine="streaming").item()
        since = newest - timedelta(days=7)
        export = export.filter(pl.col("day") >= since).join(stored.select("order_id"), on="order_id", how="anti")
    is_valid = (
        pl.col("service").is_in(SERVICES)
        & pl.col("weight_kg").is_between(0, MAX_WEIGHT_KG)
        & pl.col("distance_km").is_between(0, MAX_DISTANCE_KM)
        & pl.col("late").is_in([0, 1])
    )
    _make_folders()
    new = STORED / "new.parquet"
    export.with_columns(is_valid=is_valid).sink_parquet(new)
    rows = pl.scan_parquet(new)
    n_rows, share = rows.select(pl.len(), pl.col("depot").is_not_null().mean().alias("share")).collect().row(0)
    assert share >= MIN_SHARE_OF_DEPOTS
    for name, condition in (("valid", pl.col("is_valid")), ("quarantine", ~pl.col("is_valid"))):
        rows.filter(condition).drop("is_valid").sink_parquet(STORED / name / f"{as_of}.parquet")
    new.unlink()
    trained = pl.scan_parquet(f"{STORED}/valid/*.parquet").filter(pl.col("day") > known - timedelta(days=TRAINED_DAYS))
    trained.sort("order_id").sink_parquet("train.parquet")
    return n_rows


ENGINES: dict[str, Callable[[str], int]] = {
    "pandas": with_pandas,
    "great_expectations": with_great_expectations,
    "duckdb": with_duckdb,
    "polars": with_polars,
}


def _make_folders() -> None:
    for name in ("valid", "quarantine"):
        (STORED / name).mkdir(parents=True, exist_ok=True)


def _new_with_pandas(as_of: str):
    import pandas as pd

    export = pd.read_parquet(FILE)
    export = export[pd.to_datetime(export["day"]) <= as_of]
    stored = [pd.read_parquet(file, columns=["order_id"]) for file in sorted(STORED.glob("*/*.parquet"))]
    if stored:
        export = export[~export["order_id"].isin(pd.concat(stored)["order_id"])]
    return export.reset_index(drop=True)


def _store_with_pandas(new, is_valid, as_of: str) -> None:
    import pandas as pd

    _make_folders()
    new[is_valid].to_parquet(STORED / "valid" / f"{as_of}.parquet")
    new[~is_valid].to_parquet(STORED / "quarantine" / f"{as_of}.parquet")
    rows = pd.concat(pd.read_parquet(file) for file in sorted((STORED / "valid").glob("*.parquet")))
    since = pd.Timestamp(as_of) - pd.Timedelta(days=TRAINED_DAYS)
    rows[pd.to_datetime(rows["day"]) > since].sort_values("order_id").to_parquet("train.parquet")


def main() -> None:
    """Do one night, and print what it took."""
    engine, as_of = sys.argv[1:]
    started, cpu = time.monotonic(), time.process_time()
    n_rows = ENGINES[engine](as_of)
    work, work_cpu = time.monotonic() - started, time.process_time() - cpu
    print(json.dumps({"summary": f"{n_rows:,} new rows", "work": work, "work_cpu": work_cpu, "own_mib": 0.0}))


if __name__ == "__main__":
    main()
