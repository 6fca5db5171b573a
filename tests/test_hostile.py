"""Oracle: the law of accounting. Whatever is delivered, each row is valid or in quarantine with a reason that holds
no value of it, or the run stops with one message and leaves everything as it was.

The cases are written down; `chaos_inputs` makes more of them by chance.
"""

import io
import json
import math
from collections import Counter
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import a_product, declared, night_inputs
from chaos_inputs import Stopped, inputs, nightly

from tasks import params
from tasks.publication.contracts import Part
from tasks.publication.night import read_night, write_night
from tasks.rows.decisions import Anew, file_of, write_decisions
from tasks.rows.partitions import read_tables, write_table
from tasks.runs.steps import open_run
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json
from tasks.runtime.paths import Paths

pytestmark = pytest.mark.usefixtures("workspace")

AS_OF = date(2024, 1, 2)
HEADER = "parcel_id,day,depot,weight_kg,handed_in,late\n"
GOOD = "p1,2024-01-01,A,1.5,2024-01-01T09:00,0\n"
ROW = {"parcel_id": "p2", "day": "2024-01-02", "depot": "A", "weight_kg": 1, "handed_in": None, "late": 1}


def night(content: bytes, kind: str = "csv", **source):
    """What ingest and validate make of a file; the law of accounting is checked on the way."""
    Path("rows").write_bytes(content)
    return nightly(declare(kind=kind, **source), AS_OF)


def declare(**source):
    changes = {"source": {"url": "rows", **source}, "expectations": []}
    return a_product(**changes)


def csv(*lines, header=HEADER):
    return (header + GOOD + "".join(lines)).encode()


def jsonl(*rows):
    return "".join(row if isinstance(row, str) else json.dumps({**ROW, **row}) + "\n" for row in rows).encode()


def parquet(**columns):
    """A good row and another one; `columns` are those of both."""
    file = io.BytesIO()
    pq.write_table(
        pa.table({name: [value] * 2 for name, value in ROW.items()} | {"parcel_id": ["p1", "p2"]} | columns), file
    )
    return file.getvalue()


LINE = "{id},2024-01-01,{depot},{weight},{time},{late}\n"


def line(id="p2", depot="A", weight="1", time="", late="1"):
    return LINE.format(id=id, depot=depot, weight=weight, time=time, late=late)


WRONG_CELLS, NO_OBJECT, UNDATED = (
    "row: must have 6 cells as the header has, and has ",
    "row: is no JSON object",
    "day: is no time",
)
NO_NUMBER, NO_TIME = "weight_kg: is no number", "handed_in: is no time"
BAD_LINES = {
    # what is wrong: (the line, the reason with which it goes to quarantine)
    "a cell too few": ("p2,2024-01-01,A\n", WRONG_CELLS + "3"),
    "a cell too many": ("p2,2024-01-01,A,1,,1,9\n", WRONG_CELLS + "7"),
    "another delimiter": ("p2;2024-01-01;A;1;;1\n", WRONG_CELLS + "1"),
    "a quote inside a cell": ('p2,"2024"-01-01,A,1,,1\n', "row: has a quote in the wrong place"),
    "a quote that is opened alone": ('"p2,2024-01-01,A,1,,1\n', "row: has a quote in the wrong place"),
    "infinity": (line(weight="inf"), NO_NUMBER),
    "a number past the range of floats": (line(weight="1e999"), NO_NUMBER),
    "a number too small for floats": (line(weight="1e-999"), NO_NUMBER),
    "an integer past 2^53": (line(weight=str(2**53 + 1)), NO_NUMBER),
    "a comma for a decimal point": (line(weight='"1,5"'), NO_NUMBER),
    "a day that no month has": (line(time="2024-02-30"), NO_TIME),
    "the word today": (line(time="today"), NO_TIME),
    "a month without a day": (line(time="2024-02"), NO_TIME),
    "an hour that no day has": (line(time="2024-02-01T25:00"), NO_TIME),
    "a zone that no place has": (line(time="2024-02-01T12:00+99:00"), NO_TIME),
    "no date": ("p2,,A,1,,1\n", "day: is missing"),
    "the year 0": ("p2,0000-01-01,A,1,,1\n", UNDATED),
    "a year before our era": ("p2,-0001-01-01,A,1,,1\n", UNDATED),
    "an event today": ("p2,today,A,1,,1\n", UNDATED),
    "a date that is a path": ("p2,../../etc/passwd,A,1,,1\n", UNDATED),
    "a key that comes twice": (line(id="p1"), "parcel_id: is a key already seen"),
    "a key that comes again with other values": (line(id="p1", depot="B"), "parcel_id: is a key already seen"),
    "no key": (line(id=""), "parcel_id: is missing"),
    "a line that is cut off": ("p2,2024-01-", WRONG_CELLS + "2"),  # the last one
}
BAD_JSON = {
    "a line that is cut off": ('{"parcel_id": "p', NO_OBJECT),
    "a list": ("[1]", NO_OBJECT),
    "a column named twice": ('{"day": "a", "day": "b"}', "row: names a column twice"),
    "half a surrogate pair": (r'{"depot": "\ud800"}', NO_OBJECT),
    "too deep": ('{"depot":' * 9999, NO_OBJECT),
    "a number of 5,000 digits": ('{"depot":' + "1" * 5000 + "}", NO_OBJECT),
    "an object for a value": (json.dumps(ROW | {"depot": {"a": 1}}), "depot: is no single value"),
    "a long integer": (json.dumps(ROW | {"weight_kg": 2**53 + 1}), NO_NUMBER),
}
BAD_PARQUET = {
    "infinity": ({"weight_kg": [1, -math.inf]}, NO_NUMBER),
    "a long integer": ({"weight_kg": [1, 2**53 + 1]}, NO_NUMBER),
    "the year 148108": ({"day": pa.array([0, 2**62], pa.timestamp("us"))}, UNDATED),
    "bytes that are no text": ({"depot": [b"A", b"\xff"]}, "depot: is no single value"),
}


@pytest.mark.parametrize(("kind", "bad"), [("csv", BAD_LINES), ("jsonl", BAD_JSON)])
def test_bad_lines_go_to_quarantine_and_the_good_ones_stay(kind, bad):
    # A key of its own for each line, but where the key is what is wrong.
    lines = [text.replace("p2", f"p{i}", 1) for i, (text, _) in enumerate(bad.values(), 2)]
    ended = night(csv(*lines) if kind == "csv" else jsonl({"parcel_id": "p1"}, *(text + "\n" for text in lines)), kind)
    assert (ended["valid"], ended["quarantined"]) == (1, len(bad))
    assert ended["first_reasons"] == Counter(reason for _, reason in bad.values())


@pytest.mark.parametrize("name", BAD_PARQUET)
def test_bad_row_of_parquet_goes_to_quarantine_and_the_good_one_stays(name):
    columns, reason = BAD_PARQUET[name]
    ended = night(parquet(**columns), "parquet")
    assert (ended["valid"], ended["quarantined"]) == (1, 1)
    assert list(ended["first_reasons"]) == [reason]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_number_that_is_none_is_a_missing_cell_in_every_format(kind):
    content = {
        "csv": csv(line(weight="NaN")),
        "jsonl": jsonl({"parcel_id": "p1"}, ROW | {"weight_kg": math.nan}),
        "parquet": parquet(weight_kg=[1, math.nan]),
    }
    ended = night(content[kind], kind)
    assert (ended["valid"], ended["quarantined"]) == (2, 0)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
DVC_POINTER = b"outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 37\n  path: rows.csv\n"
STOPPED = {
    # name: (content, kind, what is said)
    "an empty file": (b"", "csv", "rows must be csv; it is empty: 0 bytes"),
    "an empty first line": (b"\n" + csv(), "csv", "rows must be csv; the first line must name the columns, and is"),
    "a pointer of Git LFS": (LFS_POINTER, "csv", "rows must be csv; it is a pointer of Git LFS .* run git lfs pull"),
    "a pointer of Git LFS for Parquet": (LFS_POINTER, "parquet", "rows must be parquet; it is a pointer of Git LFS"),
    "a pointer of DVC": (DVC_POINTER, "csv", "rows must be csv; it is a pointer of DVC .* run dvc pull"),
    "a page of HTML": (b"\n<!DOCTYPE html><html>Sign in</html>", "jsonl", "it is an HTML page, .* open the address"),
    "the error of an object store": (b"<?xml version='1.0'?><Error/>", "csv", "it is XML, such as the error of an"),
    "a ZIP archive": (b"PK\x03\x04" + bytes(99), "csv", "it is compressed, and damaged or cut off; "),
    "Parquet for CSV": (parquet(), "csv", "rows must be csv; it is Parquet; convert it, or correct source.kind"),
    "binary garbage": (bytes(range(256)), "csv", "it is binary, or its text is not utf-8; convert it"),
    "unreadable rows without a column": (
        csv("p2,2024-01-01\n", header=HEADER.replace("depot", "Depot")),
        "csv",
        "lacks depot; it has parcel_id, day, Depot, weight_kg, handed_in, late; say under source.names",
    ),
    "a header alone": (HEADER.encode(), "csv", "knows no row up to 2024-01-03; check as_of and the source"),
    "no header": (csv(header=""), "csv", "delivers none of parcel_id, .* in its 6 columns; is its first line a header"),
    "another delimiter": (csv().replace(b",", b";"), "csv", "in its 1 columns; .*source.delimiter right"),
    "a renamed column": (
        csv(header=HEADER.replace("depot", "Depot")),
        "csv",
        "lacks depot; it has parcel_id, day, Depot",
    ),
    "a column that comes twice": (
        csv(header=HEADER.replace("depot", "day")),
        "csv",
        "named once, got .'day'. more than",
    ),
    "an open quote": (csv('"p2,2024-01-01,A,1,,1\n', "x\n"), "csv", "line 3: a quote is opened and never closed"),
    "a quote that swallows lines": (
        csv('"p2,2024-01-02,A,1,,1\n', 'p3,2024-01-02,A,1,,1"\n'),
        "csv",
        "lines 3 to 4: .*a quote may be missing",
    ),
    "a quote inside a cell": (csv('p2,"2024"-01-01,A,1,,1\n', "x\n"), "csv", "line 3: ',' expected after"),
    "Latin-1": (csv(line(depot="Zürich")).decode().encode("latin-1"), "csv", "every byte must be utf-8, .*0xfc is not"),
    "two encodings": (csv(line(depot="é")) + line("p3", "é").encode("cp1252"), "csv", "every byte must be utf-8"),
    "UTF-16": (csv().decode().encode("utf-16"), "csv", "it is text in UTF-16; set source.encoding to utf-16"),
    "UTF-16 without a mark": (csv().decode().encode("utf-16-le"), "csv", "it is binary, or its text is not utf-8"),
    "no JSON at all": (csv(), "jsonl", "line 1: row: is no JSON object, and no other line is one"),
    "JSON Lines without a line": (b"\n\n", "jsonl", "delivers none of"),
    "an empty Parquet file": (b"", "parquet", "rows must be parquet; it is empty"),
    "a truncated Parquet file": (parquet()[:-9], "parquet", "rows must be parquet; "),
    "a Parquet file whose middle is gone": (
        parquet()[:150] + bytes(80) + parquet()[230:],
        "parquet",
        "must be parquet",
    ),
    "Parquet text that is no text": (
        parquet(depot=pa.Array.from_buffers(pa.string(), 2, pa.array([b"A", b"\xff"]).buffers())),
        "parquet",
        "rows must be parquet; .*UTF8",
    ),
}


@pytest.mark.parametrize("name", STOPPED)
def test_file_that_cannot_be_read_stops_with_one_message(name):
    content, kind, said = STOPPED[name]
    with pytest.raises(Stopped, match=said) as caught:
        night(content, kind)
    assert len(str(caught.value).splitlines()) == 1
    assert "params.yaml: products.tiny.source" in str(caught.value)
    assert not Path("data").exists()


def test_source_that_is_a_folder_stops_with_one_message():
    Path("rows").mkdir()
    with pytest.raises(Stopped, match=r"must hold files, and holds none"):
        nightly(declare(kind="csv"), AS_OF)


def test_label_too_large_for_single_precision_goes_to_quarantine():
    gates = {"gates__metric": "rmse", "gates__limit": 9}
    product = a_product(source={"kind": "csv", "url": "rows"}, expectations=[], target__task="regression", **gates)
    Path("rows").write_bytes(csv(line(late="1e300"), line("p3", late="-1e31"), line("p4", late="-1e29")))
    nightly(product, AS_OF)
    bad = read_tables(Paths("tiny").quarantine / "labels")
    assert bad["parcel_id"].tolist() == ["p2", "p3"]
    assert set(bad["reasons"]) == {"late: is no regression target"}
    assert read_tables(Paths("tiny").valid / "labels")["late"].tolist() == [0.0, -1e29]


def test_history_that_began_anew_is_told_in_index_report_and_night():
    """In those of the run that began it; the index keeps the reason for good."""
    decision = Anew(decided="2024-01-04", person="Ann", why="the bucket is gone")
    write_decisions(file_of("tiny", AS_OF), [decision])
    night(csv(line()))
    assert read_json(Paths("tiny").raw / "index.json")["anew"] == "the bucket is gone (Ann)"
    assert read_json(Paths("tiny").report("validation.json"))["history_anew"] == "the bucket is gone (Ann)"
    part = Paths("tiny").predictions / "part-00000.parquet"
    write_table(part, pd.DataFrame({"parcel_id": []}))
    described = [Part(name=part.name, rows=0, bytes=1, sha256="x")]
    write_night(declare(kind="csv"), AS_OF, night_inputs(as_of=AS_OF), described, part.parent)
    told = "history was lost, and fetched anew: the bucket is gone (Ann)"
    assert read_night(part.parent).accepted.endswith(told)
    nightly(declare(kind="csv"), date(2024, 1, 3))
    assert read_json(Paths("tiny").report("validation.json"))["history_anew"] is None
    assert read_json(Paths("tiny").raw / "index.json")["anew"] == "the bucket is gone (Ann)"


VALID = {
    "a leading zero": {"depot": "007"},
    "a number in words of a spreadsheet": {"depot": "=1+1"},
    "a word that pandas takes for missing": {"depot": "NA"},
    "a NUL byte": {"depot": "a\x00b"},
    "control and bidirectional characters": {"depot": "\x1b[31m\u202eabc\u2066"},
    "a path": {"parcel_id": "../../etc/passwd"},
    "a long integer": {"parcel_id": str(2**63 + 1)},
    "a text of 1 MB": {"depot": "long " * 200_000},
    "lines in a cell": {"depot": "one\r\ntwo\nthree\rfour"},
    "quotes": {"depot": "say \"no\", or\t'yes'"},
    "a category never seen": {"depot": "\U0001f600"},
}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_odd_values_stay_as_they_are(kind):
    rows = [ROW | {"parcel_id": f"p{i}", "weight_kg": "1", "late": "1"} | odd for i, odd in enumerate(VALID.values())]
    if kind == "csv":
        text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode()
    else:
        text = jsonl(*rows) if kind == "jsonl" else parquet(**pd.DataFrame(rows).to_dict("list"))
    ended = night(text, kind)
    assert ended["quarantined"] == 0
    kept = read_tables(Paths("tiny").valid / "rows").set_index("parcel_id")
    for row in rows:
        assert kept.loc[row["parcel_id"], "depot"] == row["depot"]


def test_mark_of_the_byte_order_is_no_part_of_a_name():
    assert night(b"\xef\xbb\xbf" + csv())["valid"] == 1
    assert night(csv().decode().encode("utf-16"), encoding="utf-16")["valid"] == 1


def test_columns_that_are_not_declared_reach_nothing():
    rows = pd.DataFrame([{**ROW, "extra": "SECRET", "unreadable": "SECRET", "dt": "SECRET", "reasons": "SECRET"}])
    assert night(rows.to_csv(index=False).encode())["valid"] == 1
    assert not any(b"SECRET" in file.read_bytes() for file in Path("data").rglob("*") if file.is_file())


def test_reasons_hold_no_value():
    night(
        csv(
            line(weight="SECRET"),
            line("p3", time="SECRET"),
            "p4,SECRET,A,1,,1\n",
            "SECRET,1\n",
            line("p5", late="SECRET"),
        )
    )
    for name in ("validation.json", "ingest.json"):
        assert "SECRET" not in Paths("tiny").report(name).read_text()
    bad = read_tables(Paths("tiny").quarantine / "rows")
    assert len(bad) == 4
    assert not bad["reasons"].str.contains("SECRET").any()
    assert bad["unreadable_line"].dropna().tolist() == ["6"]


def test_missing_and_empty_days_are_told_and_do_not_stop_a_night():
    assert night(csv("p2,2024-01-03,A,1,,1\n"))["valid"] == 2
    Path("rows").write_bytes(HEADER.encode())
    assert nightly(declare(kind="csv"), date(2024, 1, 3))["delivered"] == 0
    report = read_json(Paths("tiny").report("ingest.json"))
    assert (report["taken"], report["left"]) == ({}, {}), "an empty file withdraws nothing"


def test_row_that_cannot_be_read_arrives_once_wherever_it_stands():
    broken = "p2,2024-01-01\n"
    assert night(csv(broken, line("p3")))["quarantined"] == 1
    Path("rows").write_bytes(csv(line("p3"), "p4,2024-01-04,A,1,,1\n", broken))
    assert nightly(declare(kind="csv"), date(2024, 1, 3))["quarantined"] == 1
    Path("rows").write_bytes(csv(line("p3"), "p4,2024-01-04,A,1,,1\n", broken, broken, "p5,2024-01-05,A,1,,1\n"))
    assert nightly(declare(kind="csv"), date(2024, 1, 4))["quarantined"] == 2


@pytest.mark.parametrize("name", ["../tiny", "a/b", "..", "tiny\n", "Tiny", "", "a\x00b"])
def test_product_or_date_that_is_a_path_is_refused(name):
    content = declared()
    content["products"][name] = content["products"]["tiny"]
    with pytest.raises(UserError, match="products: a name must be"):
        params.parse(content)
    with pytest.raises(UserError, match="as_of must be a date"):
        params.parse(declared() | {"as_of": f"2024-01-01{name or '/'}"})
    with pytest.raises(UserError, match="as_of must be a date"):
        open_run("tiny", "train", f"2024-01-01{name or '/'}", "unique")


def test_label_of_the_last_day_of_all_is_not_known_yet():
    assert night(csv("p2,9999-12-31,A,1,,1\n"))["later"] == 1


def test_hostile_files_by_chance_are_accounted_for_or_stop_with_a_message():
    counts = inputs(seed=4, n=16)
    assert counts["accounted for"] >= 5
    assert counts["stopped with a message"] >= 4
