"""Oracle: the same file read as one piece; and for what must not be read at all, a reader that would fail."""

import gzip
import json
import uuid
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import a_product
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.runtime.errors import UserError
from tasks.sources import fetch as fetching
from tasks.sources import files
from tasks.sources.fetch import fetch, fetch_whole
from tasks.sources.formats import csv_file, parquet_file, pieces

pytestmark = pytest.mark.usefixtures("workspace")
AS_OF = date(2024, 1, 2)
HEADER = "parcel_id,day,depot,weight_kg,handed_in,late\n"
COLUMNS = {"depot": "category", "weight_kg": "number", "handed_in": "category"}


def product(**source):
    return a_product(source=source, columns=COLUMNS, expectations=[])


def cut_after(monkeypatch, n_bytes=64, n_rows=10, search=48):
    monkeypatch.setattr(pieces, "PIECE_BYTES", n_bytes)
    monkeypatch.setattr(pieces, "SEARCH_BYTES", search)
    monkeypatch.setattr(parquet_file, "PIECE_ROWS", n_rows)


def as_lines(frame):
    """The rows as sorted text, with what is unreadable of each."""
    names = sorted({*frame.columns, "unreadable", "unreadable_line", "unreadable_text"})
    return sorted(json.dumps(row, default=str) for row in frame.reindex(columns=names).astype(str).to_numpy().tolist())


def outcome(content, **source):
    Path("rows").write_bytes(content)
    try:
        return as_lines(fetch_whole(product(url="rows", **source), None, AS_OF))
    except UserError as error:
        return str(error)


def known_pieces(of, since=None, as_of=AS_OF):
    return {piece.name: piece.digest for piece in fetch(of, since, as_of)}


def read_again(of, known, since=None, as_of=AS_OF):
    """The names of pieces that are read once those of a delivery are known, and their rows."""
    found = list(fetch(of, since, as_of, lambda name, digest: known.get(name) == digest))
    return [piece.name for piece in found if piece.rows is not None], found


CELLS = st.text(st.sampled_from('ab"\n,é'), max_size=6)
ROWS = st.lists(st.tuples(*[CELLS] * 5, st.just("0")), min_size=1, max_size=30)


@pytest.fixture
def no_limits():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@given(rows=ROWS, encoding=st.sampled_from(["utf-8", "cp1252", "utf-16"]), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_of_any_cells_reads_alike_in_pieces_and_whole(no_limits, rows, encoding, end):
    text = HEADER + "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + end for row in rows)
    content = text.encode(encoding)
    no_limits.undo()
    whole = outcome(content, kind="csv", encoding=encoding)
    cut_after(no_limits)
    assert outcome(content, kind="csv", encoding=encoding) == whole
    assert not isinstance(whole, str)


@given(lines=st.lists(st.text(st.sampled_from('ab"\n,,,,,'), max_size=14), max_size=30))
@example(lines=['a,b,"c,d,e,f'] + ["1,2,3,4,5,6"] * 9)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_line_of_a_polluted_csv_is_lost_in_pieces(no_limits, lines):
    """A stop may name another line where a quote is never closed; rows that are told are the same."""
    content = (HEADER + "p,2024-01-01,A,1,x,0\n" + "".join(f"{line}\n" for line in lines)).encode()
    no_limits.undo()
    whole = outcome(content, kind="csv")
    cut_after(no_limits)
    parts = outcome(content, kind="csv")
    if isinstance(whole, str) or isinstance(parts, str):
        assert isinstance(whole, str) == isinstance(parts, str)
    else:
        assert parts == whole


def csv_of(n, first=0):
    return "".join(f'p{i},2024-01-01,"A, {i}",{i}.5,"x\ny",{i % 2}\n' for i in range(first, first + n))


def jsonl_of(n, first=0):
    rows = ({"parcel_id": f"p{i}", "day": "2024-01-01", "depot": "A", "weight_kg": i, "late": 0} for i in range(n))
    return "".join(f"{json.dumps({**row, 'handed_in': first})}\n" for row in rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pieces_before_the_last_stay_known_when_a_text_grows(monkeypatch, kind, pack):
    cut_after(monkeypatch, 1000, search=200)
    text = HEADER + csv_of(100) if kind == "csv" else jsonl_of(60)
    more = csv_of(3, 100) if kind == "csv" else jsonl_of(3, 1)
    Path("rows").write_bytes(pack(text.encode()))
    of = product(kind=kind, url="rows")
    known = known_pieces(of)
    assert len(known) > 3
    assert read_again(of, known)[0] == []
    Path("rows").write_bytes(pack((text + more).encode()))
    names, found = read_again(of, known)
    assert names == [f"rows#{len(known) - 1}"]
    assert as_lines(pd.concat([piece.rows for piece in found if piece.rows is not None])) == as_lines(
        fetch_whole(of, None, AS_OF).tail(len(found[-1].rows))
    )


def test_line_of_an_unreadable_row_counts_the_known_pieces_before(monkeypatch):
    cut_after(monkeypatch, 1000, search=200)
    Path("rows").write_text(HEADER + csv_of(100))
    of = product(kind="csv", url="rows")
    known = known_pieces(of)
    with Path("rows").open("a") as file:
        file.write("1,2\n")
    rows = read_again(of, known)[1][-1].rows
    assert rows["unreadable_line"].dropna().tolist() == [len(Path("rows").read_text().splitlines())]


def test_changed_byte_of_a_known_piece_is_found_at_equal_length(monkeypatch):
    cut_after(monkeypatch, 1000, search=200)
    text = HEADER + csv_of(100)
    Path("rows").write_text(text)
    of, known = product(kind="csv", url="rows"), known_pieces(product(kind="csv", url="rows"))
    Path("rows").write_text(text.replace("p50,2024-01-01", "p50,2024-01-02"))
    names = read_again(of, known)[0]
    assert len(names) == 1


def test_other_reading_or_header_makes_every_piece_another_one(monkeypatch):
    cut_after(monkeypatch, 1000, search=200)
    Path("rows").write_text(HEADER + csv_of(100))
    of = product(kind="csv", url="rows")
    known = known_pieces(of)
    declared = replace(of, source=replace(of.source, missing=("NA",)))
    assert len(read_again(declared, known)[0]) == len(known)
    Path("rows").write_text(HEADER.replace("handed_in", "handed_on") + csv_of(100))
    with pytest.raises(UserError, match="lacks handed_in; it has parcel_id, day"):
        read_again(of, known)


def test_reader_whose_code_changed_reads_all(monkeypatch):
    Path("rows").write_text(HEADER + csv_of(3))
    known = known_pieces(product(kind="csv", url="rows"))
    monkeypatch.setattr(fetching, "code_sha256", lambda *places: "of another version")
    assert read_again(product(kind="csv", url="rows"), known)[0] == ["rows#0"]


def parquet_of(n, days=1):
    day = [datetime(2024, 1, 1) + timedelta(days=i * days // n) for i in range(n)]
    return pa.table(
        {
            "parcel_id": [f"p{i}" for i in range(n)],
            "day": pa.array(day, pa.timestamp("us")),
            "depot": ["A"] * n,
            "weight_kg": np.arange(n) / 4,
            "handed_in": [None] * n,
            "late": [0] * n,
            "note": ["undeclared"] * n,
        }
    )


def test_groups_of_rows_stay_known_when_a_file_is_written_anew_with_more():
    of = product(kind="parquet", url="rows.parquet")
    pq.write_table(parquet_of(230_000), "rows.parquet", row_group_size=60_000)
    known = known_pieces(of)
    assert len(known) == 4
    pq.write_table(parquet_of(230_500), "rows.parquet", row_group_size=60_000)
    names, found = read_again(of, known)
    assert names == ["rows.parquet#3"]
    assert found[-1].rows["parcel_id"].tolist()[-1] == "p230499"
    changed = parquet_of(230_500)
    changed = changed.set_column(6, "note", pa.array(["other"] * 230_500))
    pq.write_table(changed, "rows.parquet", row_group_size=60_000)
    assert read_again(of, known_pieces(of))[0] == []


def test_long_group_of_rows_comes_in_parts_and_whole(monkeypatch):
    cut_after(monkeypatch, n_rows=10)
    pq.write_table(parquet_of(95), "rows.parquet")
    of = product(kind="parquet", url="rows.parquet")
    parts = list(fetch(of, None, AS_OF))
    assert [len(piece.rows) for piece in parts] == [10] * 9 + [5]
    assert pd.concat([piece.rows for piece in parts])["parcel_id"].tolist() == [f"p{i}" for i in range(95)]
    assert read_again(of, {piece.name: piece.digest for piece in parts if piece.name != "rows.parquet#0.4"})[0] == [
        "rows.parquet#0.4"
    ]


def test_groups_outside_the_wanted_days_are_left_out_by_their_statistics(monkeypatch):
    cut_after(monkeypatch, n_rows=10)
    pq.write_table(parquet_of(100, days=10), "rows.parquet", row_group_size=10)
    of = a_product(
        source={"kind": "parquet", "url": "rows.parquet"}, columns=COLUMNS, expectations=[], predict={"horizon_days": 1}
    )
    found = list(fetch(of, date(2024, 1, 2), date(2024, 1, 3)))
    assert [piece.rows is not None for piece in found] == [False, True, True, True] + [False] * 6
    assert [(piece.n_rows, piece.days) for piece in found[4:6]] == [
        (10, ("2024-01-05", "2024-01-05")),
        (10, ("2024-01-06", "2024-01-06")),
    ]
    assert all(piece.rows is None for piece in fetch(of, date(2024, 2, 1), date(2024, 2, 3)))
    gaps = parquet_of(100, days=10)
    gaps = gaps.set_column(1, "day", pa.array([None if i == 95 else d.as_py() for i, d in enumerate(gaps["day"])]))
    pq.write_table(gaps, "rows.parquet", row_group_size=10)
    assert list(fetch(of, None, date(2024, 1, 3)))[-1].rows is not None  # a row without a date waits for a day


def test_folder_is_known_file_by_file_and_not_opened_after_the_night():
    for day in ("2024-01-01", "2024-01-02", "2024-01-03"):
        Path(f"rows/day={day}").mkdir(parents=True)
        Path(f"rows/day={day}/part.csv").write_text("parcel_id,depot,weight_kg,handed_in,late\np,A,1,x,0\n")
    Path("rows/day=2024-01-03/part.csv").write_bytes(b"\xff")
    of = a_product(source={"kind": "csv", "url": "rows"}, columns=COLUMNS, expectations=[], predict={"horizon_days": 0})
    found = list(fetch(of, None, AS_OF))
    assert [(piece.name, piece.days) for piece in found] == [
        ("day=2024-01-01/part.csv#0", None),
        ("day=2024-01-02/part.csv#0", None),
        ("day=2024-01-03/part.csv#0", ("2024-01-03", "2024-01-03")),
    ]
    assert found[0].rows["day"].tolist() == ["2024-01-01"]
    known = {piece.name: piece.digest for piece in found}
    Path("rows/day=2024-01-01/part.csv").write_text("parcel_id,depot,weight_kg,handed_in,late\np,A,2,x,0\n")
    assert read_again(of, known)[0] == ["day=2024-01-01/part.csv#0"]


def test_small_file_in_a_store_is_known_by_its_tag_and_not_opened(monkeypatch, s3_here):
    prefix, client = f"pieces-{uuid.uuid4().hex}", boto3.session.Session().client("s3")

    def put(name, cell):
        row = f"p,2024-01-01,A,{cell},x,0\n".encode()
        client.put_object(Bucket="lamplighter", Key=f"{prefix}/{name}.csv", Body=HEADER.encode() + row)

    put("a", 1)
    put("b", 1)
    of = product(kind="csv", url=f"s3://lamplighter/{prefix}/")
    known = known_pieces(of)
    assert list(known) == ["a.csv#0", "b.csv#0"]
    with monkeypatch.context() as patch:
        patch.setattr(files, "_opened", None)
        assert read_again(of, known)[0] == []
    put("b", 2)
    names, found = read_again(of, known)
    assert names == ["b.csv#0"]
    assert found[-1].rows["weight_kg"].tolist() == ["2"]


def test_column_that_comes_and_goes_is_missing_where_it_is_not():
    Path("rows").mkdir()
    Path("rows/a.csv").write_text("parcel_id,day,depot,weight_kg,late\np,2024-01-01,A,1,0\n")
    Path("rows/b.csv").write_text(HEADER + "q,2024-01-01,A,1,x,0\n")
    of = product(kind="csv", url="rows")
    assert [piece.rows["handed_in"].fillna("-").tolist() for piece in fetch(of, None, AS_OF)] == [["-"], ["x"]]
    Path("rows/b.csv").unlink()
    with pytest.raises(UserError, match="lacks handed_in"):
        list(fetch(of, None, AS_OF))


def test_numbers_that_read_two_ways_add_up_over_pieces_and_nights():
    Path("rows").mkdir()
    for name, cells in (("a", ["1.965"] * 6), ("b", ["2.100"] * 6 + ["12"])):
        rows = "".join(f"{name}{i},2024-01-01,A,{cell},x,0\n" for i, cell in enumerate(cells))
        Path(f"rows/{name}.csv").write_text(HEADER + rows)
    of = product(kind="csv", url="rows")
    with pytest.raises(UserError, match="the numbers of weight_kg fit two readings: 12 of 13 have a dot"):
        list(fetch(of, None, AS_OF))
    late = Path("rows/b.csv").read_bytes()
    Path("rows/b.csv").unlink()
    (first,) = fetch(of, None, AS_OF)
    Path("rows/b.csv").write_bytes(late)
    with pytest.raises(UserError, match="12 of 13"):
        list(fetch(of, None, AS_OF, lambda name, _: name == first.name, lambda _: first.evidence))
    Path("rows/a.csv").write_text(HEADER + "a,2024-01-01,A,0.5,x,0\n")
    assert len(list(fetch(of, None, AS_OF))) == 2


def test_row_that_never_ends_is_given_up_and_memory_with_it(monkeypatch):
    cut_after(monkeypatch, 200)
    monkeypatch.setattr(csv_file, "ROW_BYTES", 300)
    rows = "".join(f"p{i},2024-01-01,A,1,x,0\n" for i in range(200))
    Path("rows").write_text(HEADER + rows[:700] + '\nq,2024-01-01,"A,1,x,0\n' + rows)
    found = list(fetch(product(kind="csv", url="rows"), None, AS_OF))
    assert max(piece.n_rows for piece in found) < 40
    frame = pd.concat([piece.rows for piece in found])
    assert frame["unreadable"].dropna().str.contains("quote in the wrong place").sum() == 1
    assert frame["parcel_id"].notna().sum() >= 229
