"""Made-up orders in one Parquet file that grows by a day every night, and the entry that declares them.

Every day has as many rows, 1 in 1,000 of them with a weight that breaks an expectation. The same day has the same cells
whatever lies before it, so that nights after a short history and after a long one have the same new rows.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROWS_A_DAY = 2_000
DAYS_A_GROUP = 50
"""Days in a row group of the file: 100,000 rows."""
LAST_OF_HISTORY = date(2025, 12, 31)
"""The last day of every history; the nights are the days after it."""
DEPOTS = [f"depot {number:02d}" for number in range(20)]
SERVICES = ["standard", "express", "return", "freight"]
MAX_WEIGHT_KG, MAX_DISTANCE_KM = 70, 1_500
PRODUCT, FILE = "orders", "orders.parquet"


def write_orders(folder: Path, days_of_history: int, nights: int, rows_a_day: int = ROWS_A_DAY) -> Path:
    """Write the file as it is after so many nights, piece by piece."""
    file = folder / FILE
    writer = None
    for table in _groups(days_of_history, nights, rows_a_day):
        writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return file


def as_of_night(night: int) -> date:
    """Return the date of a night; 0 is that of the first load."""
    return LAST_OF_HISTORY + timedelta(days=night)


def write_params(folder: Path, as_of: date) -> None:
    """Write params.yaml with the one product."""
    text = yaml.safe_dump({"as_of": as_of.isoformat(), "products": {PRODUCT: ENTRY}}, sort_keys=False)
    (folder / "params.yaml").write_text(text, "utf-8")


ENTRY: dict[str, Any] = {
    "source": {"kind": "parquet", "url": FILE},
    "key": ["order_id"],
    "time": "day",
    "columns": {
        "depot": "category",
        "service": "category",
        "weight_kg": "number",
        "distance_km": "number",
        "price": "number",
        "handed_in": "time",
    },
    "target": {"name": "late", "task": "binary", "delay_days": 1},
    "expectations": [
        {
            "type": "expect_column_values_to_not_be_null",
            "severity": "critical",
            "kwargs": {"column": "depot", "mostly": 0.99},
        },
        {
            "type": "expect_column_values_to_be_in_set",
            "severity": "warning",
            "kwargs": {"column": "service", "value_set": SERVICES},
        },
        {
            "type": "expect_column_values_to_be_between",
            "severity": "warning",
            "kwargs": {"column": "weight_kg", "min_value": 0, "max_value": MAX_WEIGHT_KG},
        },
        {
            "type": "expect_column_values_to_be_between",
            "severity": "warning",
            "kwargs": {"column": "distance_km", "min_value": 0, "max_value": MAX_DISTANCE_KM},
        },
        {
            "type": "expect_column_values_to_be_in_set",
            "severity": "warning",
            "kwargs": {"column": "late", "value_set": [0, 1]},
        },
    ],
    "split": {"by": "time", "test_days": 7, "val_days": 7, "train_days": 60},
    "schedule": {"retrain": None, "predict": None},
}


def _groups(days_of_history: int, nights: int, rows_a_day: int) -> Iterator[pa.Table]:
    """Yield the row groups, oldest day first; days are counted from the first night on, before it negative."""
    for first in range(-days_of_history, nights, DAYS_A_GROUP):
        end = min(first + DAYS_A_GROUP, nights)
        yield _orders(first, rows_a_day).slice(0, (end - first) * rows_a_day)


def _orders(first_day: int, rows_a_day: int) -> pa.Table:
    """Return a whole group."""
    n = DAYS_A_GROUP * rows_a_day
    draw = np.random.default_rng([17, first_day + 1_000_000])
    offset = np.repeat(np.arange(first_day, first_day + DAYS_A_GROUP), rows_a_day)
    day = np.datetime64(LAST_OF_HISTORY) + np.timedelta64(1, "D") + offset
    weight = np.round(draw.gamma(2.0, 4.0, n).clip(0.1, MAX_WEIGHT_KG), 2)
    weight[::1_000] = -1.0
    distance = draw.integers(1, MAX_DISTANCE_KM, n)
    numbers = pa.array(first_day * rows_a_day + np.arange(n) + 10**9).cast(pa.string())
    columns = {
        "order_id": numbers,
        "day": pa.array(day),
        "depot": pa.array(DEPOTS).take(pa.array(draw.integers(0, len(DEPOTS), n))),
        "service": pa.array(SERVICES).take(pa.array(draw.integers(0, len(SERVICES), n))),
        "weight_kg": pa.array(weight),
        "distance_km": pa.array(distance),
        "price": pa.array(np.round(4 + weight * 0.3 + distance * 0.01, 2)),
        "handed_in": pa.array(day.astype("datetime64[s]") + draw.integers(0, 86_400, n)),
        "late": pa.array((draw.random(n) < 0.05 + 0.3 * distance / MAX_DISTANCE_KM).astype(np.int64)),
    }
    return pa.table(columns)
