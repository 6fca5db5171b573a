"""Oracle: Python's own value of each cell. What is stored and what is valid is equal to it, missing, or told."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import a_product
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.rows.casting import as_text, cast_column, event_day, parse_time
from tasks.rows.partitions import read_table, write_table
from tasks.rows.raw_archive import storable
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")


def integers(bits, signed=True):
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def ticks(arrow, bits=64):
    """Integers as the type that counts by them; the lowest means a missing time to numpy and pandas."""
    return integers(bits).filter((1 - 2**63).__le__), lambda cells: pa.array(
        cells, pa.int32() if bits == 32 else pa.int64()
    ).view(arrow)


def plainly(values, arrow):
    return values, lambda cells: pa.array(cells, arrow)


def encoded(values, arrow):
    return values, lambda cells: pa.array(cells, arrow).dictionary_encode()


FLOATS = st.floats(width=32)
HALVES = st.floats(width=16)
SECONDS_OF_DAY = st.integers(0, 86399)
TYPES = {
    **{f"int{bits}": plainly(integers(bits), getattr(pa, f"int{bits}")()) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": plainly(integers(bits, False), getattr(pa, f"uint{bits}")()) for bits in (8, 16, 32, 64)},
    "bool": plainly(st.booleans(), pa.bool_()),
    "half": (HALVES, lambda cells: pa.array([None if c is None else np.float16(c) for c in cells], pa.float16())),
    "float": plainly(FLOATS, pa.float32()),
    "double": plainly(st.floats(), pa.float64()),
    "decimal32": plainly(st.decimals(-999, 999, places=2), pa.decimal32(9, 2)),
    "decimal128": plainly(st.decimals(-(10**15), 10**15, places=18), pa.decimal128(38, 18)),
    "decimal256": plainly(st.decimals(-(10**40), 10**40, places=3), pa.decimal256(60, 3)),
    **{name: plainly(st.text(max_size=6), getattr(pa, name)()) for name in ("string", "large_string", "string_view")},
    **{
        name: plainly(st.one_of(st.binary(max_size=4), st.text(max_size=3).map(str.encode)), getattr(pa, name)())
        for name in ("binary", "large_binary", "binary_view")
    },
    "fixed3": plainly(st.binary(min_size=3, max_size=3), pa.binary(3)),
    "fixed16": plainly(st.binary(min_size=16, max_size=16), pa.binary(16)),
    "uuid": plainly(st.binary(min_size=16, max_size=16), pa.uuid()),
    "json": plainly(st.sampled_from(["1", '{"a": 1}']), pa.json_(pa.string())),
    "date32": ticks(pa.date32(), 32),
    "days": plainly(st.dates(), pa.date64()),
    **{f"timestamp[{unit}]": ticks(pa.timestamp(unit)) for unit in ("ms", "us", "ns")},
    **{f"moment[{unit}]": ticks(pa.timestamp(unit, "Europe/Berlin")) for unit in ("ms", "us", "ns")},
    "time32": plainly(SECONDS_OF_DAY, pa.time32("s")),
    "time64[us]": plainly(SECONDS_OF_DAY.map(lambda s: s * 10**6 + 1), pa.time64("us")),
    "time64[ns]": plainly(SECONDS_OF_DAY.map(lambda s: s * 10**9 + 1), pa.time64("ns")),
    "duration": ticks(pa.duration("us")),
    "null": plainly(st.none(), pa.null()),
    "dictionary of integers": encoded(integers(64), pa.int64()),
    "dictionary of floats": encoded(FLOATS, pa.float32()),
    "list": plainly(st.lists(st.integers(0, 3), max_size=2), pa.list_(pa.int64())),
    "struct": plainly(st.fixed_dictionaries({"a": st.integers(0, 3)}), pa.struct([("a", pa.int64())])),
    "map": plainly(st.just([("a", 1)]), pa.map_(pa.string(), pa.int64())),
}
PER_SECOND = {"ms": 10**3, "us": 10**6, "ns": 10**9}


def second_of(name, cell):
    """The second of a time since 1970, rounded down, as the table counts it; None where it is no time."""
    if name == "date32":
        return cell * 86400
    if name == "days":
        return (cell - date(1970, 1, 1)).days * 86400
    unit = name.partition("[")[2].rstrip("]")
    return cell // PER_SECOND[unit] if name.startswith(("timestamp", "moment")) else None


def number_of(name, cell):
    """The exact number that a cell is; None where it is none."""
    if isinstance(cell, bytes):
        return None
    if isinstance(cell, str):
        plain = name in ("string", "large_string", "string_view", "json") and set(cell) <= set("0123456789")
        return Fraction(cell) if plain and cell else None
    if name.startswith(("time", "moment", "date", "days", "duration")) or isinstance(cell, list | dict):
        return None
    return Fraction(cell) if math.isfinite(cell) else None


def is_missing(cell):
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def stored(name, cells, kind):
    """A column of Parquet as it is fetched, stored and cast; which cells are marked, and which did not fit."""
    column = TYPES[name][1](cells)
    table = {"parcel_id": [f"p{i}" for i in range(len(cells))], "day": ["2024-01-01"] * len(cells), "depot": column}
    pq.write_table(pa.table({**table, "late": [1] * len(cells)}), "rows.parquet")
    product = a_product(source={"kind": "parquet", "url": "rows.parquet"}, columns={"depot": kind}, expectations=[])
    frame = fetch(product, None, date(2024, 1, 2))
    write_table(Path("stored.parquet"), frame[["depot"]].apply(storable))
    read = read_table(Path("stored.parquet"))["depot"]
    assert as_text(read).fillna("-").tolist() == as_text(frame["depot"].pipe(storable)).fillna("-").tolist()
    marked = frame["unreadable"].notna() if "unreadable" in frame else pd.Series(False, frame.index)
    return *cast_column(read, kind), marked


@pytest.mark.long
@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cell_of_every_arrow_type_is_equal_missing_or_told(name, data):
    cells = data.draw(st.lists(st.one_of(TYPES[name][0], st.none()), min_size=1, max_size=6))
    kind = data.draw(st.sampled_from(["number", "category", "time"]))
    present = [cell for cell in cells if not is_missing(cell)]
    if present and all(is_no_single_value(name, cell) for cell in present):
        with pytest.raises(UserError, match="all cells of depot are lists, objects or bytes"):
            stored(name, cells, kind)
        return
    typed, misfit, marked = stored(name, cells, kind)
    for cell, got, bad, mark in zip(cells, typed, misfit, marked, strict=True):
        if is_missing(cell):
            assert pd.isna(got)
            assert not bad
        elif mark or bad:
            assert pd.isna(got) or mark
            assert (
                kind != "number"
                or name.startswith("s")
                or mark
                or number_of(name, cell) is None
                or (abs(number_of(name, cell)) > 2**53)
            ), cell
        elif kind == "number":
            exact = number_of(name, cell)
            assert exact is not None
            assert got == float(exact)
            assert abs(exact) <= 2**53 or Fraction(got) == exact
        elif kind == "time" and second_of(name, cell) is not None:
            assert np.datetime64(got, "s").astype(np.int64) == second_of(name, cell)
        elif kind == "category":
            assert same_text(name, cell, got), (cell, got)


def is_no_single_value(name, cell):
    """Whether a cell is a list, an object, or bytes that are no text."""
    if not isinstance(cell, bytes):
        return isinstance(cell, list | dict)
    try:
        return name not in ("fixed16", "uuid") and not isinstance(cell.decode(), str)
    except UnicodeDecodeError:
        return True


def same_text(name, cell, text):
    """Whether a text means the cell's value."""
    if isinstance(cell, bytes):
        return text.replace("-", "") == cell.hex() if len(cell) == 16 and name != "binary" else text.encode() == cell
    if isinstance(cell, float):
        return float(text) == cell
    if isinstance(cell, Decimal):
        return Decimal(text) == cell
    if (second := second_of(name, cell)) is not None:
        found = parse_time(pd.Series([text]))[0]
        return pd.isna(found) or np.datetime64(found, "s").astype(np.int64) == second
    if name.startswith("time"):
        hours, minutes, seconds = text.split(":")
        per = {"time32": 1, "time64[us]": 10**6, "time64[ns]": 10**9}[name]
        return (Decimal(hours) * 3600 + Decimal(minutes) * 60 + Decimal(seconds)) * per == cell
    if name == "duration":
        return pd.Timedelta(text).value // 1000 == cell if abs(cell) < 2**53 else True
    return text == str(cell)


def test_time_of_96_bits_keeps_its_year(workspace):
    far = [datetime(9999, 12, 31, tzinfo=UTC), datetime(2024, 3, 1, 12, 30, 15, 250000, tzinfo=UTC), None]
    column = pa.array(far, pa.timestamp("us"))
    table = {"parcel_id": ["a", "b", "c"], "day": ["2024-01-01"] * 3, "handed_in": column, "late": [1, 0, 1]}
    pq.write_table(pa.table(table), "rows.parquet", use_deprecated_int96_timestamps=True)
    product = a_product(
        source={"kind": "parquet", "url": "rows.parquet"}, columns={"handed_in": "time"}, expectations=[]
    )
    cells = fetch(product, None, date(2024, 1, 2))["handed_in"]
    assert event_day(cells).tolist()[:2] == ["9999-12-31", "2024-03-01"]
    assert as_text(cells)[1] == "2024-03-01 12:30:15.250000"


def test_time_of_96_bits_beyond_all_microseconds_is_told_as_what_it_is(workspace):
    """Such a year is none that anybody meant; as microseconds it would have been another one, within reach."""
    seconds = [400_000 * 31_556_952, 1_709_296_215, None]
    column = pa.array(seconds, pa.timestamp("s"))
    table = {"parcel_id": ["a", "b", "c"], "day": ["2024-01-01"] * 3, "handed_in": column, "late": [1, 0, 1]}
    pq.write_table(pa.table(table), "rows.parquet", use_deprecated_int96_timestamps=True)
    product = a_product(
        source={"kind": "parquet", "url": "rows.parquet"}, columns={"handed_in": "time"}, expectations=[]
    )
    cells = fetch(product, None, date(2024, 1, 2))["handed_in"]
    assert cells[0] == str(np.datetime64(seconds[0], "s"))
    times, misfit = cast_column(cells, "time")
    assert misfit.tolist() == [True, False, False]
    assert str(times[1])[:19] == "2024-03-01 12:30:15"


def test_column_of_floats_with_nan_is_numbers_and_missing_cells(workspace):
    """Integers with gaps, which pandas makes floats of, are the same keys with and without a gap."""
    for column in (pa.array([1000.0, float("nan"), 7.5]), pa.array([1000.0, None, 7.5])):
        table = {"parcel_id": column, "day": ["2024-01-01"] * 3, "weight_kg": column, "late": [1, 0, 1]}
        pq.write_table(pa.table(table), "rows.parquet")
        product = a_product(
            source={"kind": "parquet", "url": "rows.parquet"}, columns={"weight_kg": "number"}, expectations=[]
        )
        frame = fetch(product, None, date(2024, 1, 2))
        numbers, misfit = cast_column(storable(frame["weight_kg"]), "number")
        assert numbers.fillna(-1).tolist() == [1000.0, -1, 7.5]
        assert not misfit.any()
        assert as_text(frame["parcel_id"]).fillna("-").tolist() == ["1000", "-", "7.5"]


def test_nan_that_an_earlier_version_stored_as_text_is_missing_in_numbers_alone():
    numbers, misfit = cast_column(pd.Series(["0.5", "NaN", "nan"]), "number")
    assert numbers.isna().tolist() == [False, True, True]
    assert misfit.tolist() == [False, False, True]
    assert cast_column(pd.Series(["NaN"]), "category")[0].tolist() == ["NaN"]
