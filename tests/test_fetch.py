"""Oracle: one hand-written table, told by every kind of source; real servers for what comes over a network."""

import functools
import http.server
import json
import sqlite3
import threading
import uuid
from datetime import date

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import a_product
from conftest import free_port

from tasks.rows.casting import as_text
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")

AS_OF = date(2024, 1, 2)
TABLE = pd.DataFrame(
    {
        "parcel_id": ["001", "002"],
        "day": ["2024-01-01", "2024-01-02"],
        "depot": ["A", None],
        "weight_kg": [1.5, 2.0],
        "handed_in": ["2024-01-01T09:00", None],
        "late": [1, None],
    }
)


def product(**source):
    return a_product(source=source)


def fetched(start=None, **source):
    return fetch(product(**source), start, AS_OF)


def write(kind, folder):
    file = folder / f"rows.{kind}"
    if kind == "csv":
        TABLE.to_csv(file, index=False)
    elif kind == "parquet":
        TABLE.to_parquet(file)
    else:
        file.write_text("\n".join(json.dumps(row) for row in json.loads(TABLE.to_json(orient="records"))) + "\n\n")
    return file


def same_cells(frame):
    """The told table, compared cell by cell as text."""
    assert list(frame.columns) == list(TABLE.columns)
    assert frame.isna().to_numpy().tolist() == TABLE.isna().to_numpy().tolist()
    assert list(frame["parcel_id"]) == ["001", "002"]
    assert [float(weight) for weight in frame["weight_kg"]] == [1.5, 2.0]
    assert float(frame["late"][0]) == 1


@pytest.fixture
def web(workspace):
    """A web server of the working directory."""
    (workspace / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/half") and self.command == "HEAD":
                self.send_response(200)
                self.send_header("Content-Length", "100")
                self.send_header("Accept-Ranges", "bytes")
                self.end_headers()
            elif self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", self.path.replace("/moved", "/half"))
                self.end_headers()
            elif self.path.startswith(("/broken", "/half")):
                self.send_error(500)
            elif self.path.startswith("/secret"):
                self.send_error(403)
            else:
                super().do_GET()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    serve = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=workspace / "web"))
    threading.Thread(target=serve.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serve.server_port}"
    serve.shutdown()
    serve.server_close()


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_file_is_read_by_path_web_and_object_store_alike(kind, workspace, web, s3_here):
    file = write(kind, workspace)
    same_cells(fetched(kind=kind, url=file.name))
    same_cells(fetched(kind=kind, url=str(file)))
    write(kind, workspace / "web")
    same_cells(fetched(kind=kind, url=f"{web}/rows.{kind}"))
    key = f"fetch-{uuid.uuid4().hex}/rows.{kind}"
    boto3.session.Session().client("s3").upload_file(str(file), "lamplighter", key)
    same_cells(fetched(kind=kind, url=f"s3://lamplighter/{key}"))


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_file_that_is_not_there_is_told_wherever_it_should_be(kind, web, s3_here):
    for url in ("absent.x", f"{web}/absent.x", f"s3://lamplighter/absent-{kind}.x"):
        with pytest.raises(UserError, match=f"tiny.source.url must exist, and {url} does not; correct the path"):
            fetched(kind=kind, url=url)


def test_server_that_ails_or_is_down_is_a_passing_failure(web):
    for url in (f"{web}/broken.csv", f"{web}/broken.csv?page=1", f"http://127.0.0.1:{free_port()}/rows.csv"):
        with pytest.raises(TransientError, match="could not be read"):
            fetched(kind="csv", url=url)


def test_jsonl_lines_that_are_no_rows_are_kept_with_line_and_text(workspace):
    (workspace / "rows.jsonl").write_text('{"a": 1}\n\n{"a": \n[1]\n{"a": 1, "a": 2}\n{"a": "\\ud800"}\n' + "[" * 5000)
    frame = fetched(kind="jsonl", url="rows.jsonl")
    assert frame["a"].tolist()[:1] == [1]
    no_object = "row: is no JSON object"
    assert list(zip(frame["unreadable"], frame["unreadable_line"], strict=True))[1:] == [
        (no_object, 3),
        (no_object, 4),
        ("row: names a column twice", 5),
        (no_object, 6),
        (no_object, 7),
    ]
    assert frame["unreadable_text"][1:4].tolist() == ['{"a":', "[1]", '{"a": 1, "a": 2}']
    (workspace / "rows.jsonl").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"must be jsonl; line 1: row: is no JSON object, and no other line is one"):
        fetched(kind="jsonl", url="rows.jsonl")


def test_csv_row_with_too_few_or_many_cells_keeps_line_and_cells(workspace):
    (workspace / "rows.csv").write_text('a,b,c\n1,"x\ny",3\n4,5\n\n6,7,8,9\n10,11,12\n')
    frame = fetched(kind="csv", url="rows.csv")
    assert frame["a"].tolist()[:2] == ["1", "10"]
    assert frame["a"][2:].isna().all()
    assert frame["unreadable"][2:].tolist() == [
        "row: must have 3 cells as the header has, and has 2",
        "row: must have 3 cells as the header has, and has 4",
    ]
    assert frame["unreadable_line"][2:].tolist() == [4, 6]
    assert frame["unreadable_text"][2:].tolist() == ['["4", "5"]', '["6", "7", "8", "9"]']


def test_delimiter_and_encoding_are_as_declared(workspace):
    (workspace / "rows.csv").write_bytes("a;b\né;1,5\n".encode("cp1252"))
    frame = fetched(kind="csv", url="rows.csv", delimiter=";", encoding="cp1252")
    assert frame.to_numpy().tolist() == [["é", "1,5"]]
    (workspace / "rows.jsonl").write_bytes('{"a": "é"}\n'.encode("utf-16"))
    assert fetched(kind="jsonl", url="rows.jsonl", encoding="utf-16")["a"][0] == "é"


def test_what_pandas_would_change_in_parquet_stays_as_it_is(workspace):
    nested = pa.array([b"one", None, b"\xff"])
    pq.write_table(
        pa.table(
            {
                "nan": pa.array([0.1, float("nan"), None], pa.float64()),
                "bytes": pa.array([b"007", None, b"x"]),
                "word": pa.array(["a", "b", None]).dictionary_encode(),
                "depot": nested,
            }
        ),
        "rows.parquet",
    )
    frame = fetched(kind="parquet", url="rows.parquet")
    assert frame["nan"].fillna("-").tolist() == [0.1, "-", "-"]
    assert frame["bytes"].fillna("-").tolist() == ["007", "-", "x"]
    assert frame["word"].fillna("-").tolist() == ["a", "b", "-"]
    assert frame["depot"].fillna("-").tolist() == ["one", "-", "\"b'\\\\xff'\""]
    assert frame["unreadable"].fillna("-").tolist() == ["-", "-", "depot: is no single value"]


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("csv", b"", "must be csv; it is empty: 0 bytes"),
        ("csv", b'a,b\n1,2\n"1,2\n3,4,5\n', "must be csv; line 3: a quote is opened and never closed"),
        ("csv", b'a,b\n1,2\n"1"x,2\n3\n', "must be csv; line 3: ',' expected after '\"'"),
        ("csv", b'a,b\n"1\n2,3\n4",5,6\n', "must be csv; lines 2 to 4: .*a quote may be missing"),
        ("csv", b"a\n\xff\xfe\n", "must be csv; after line .*utf-8, and byte 0xff is not; .*source.encoding"),
        ("csv", b"day,b,day\n1,2,3\n", r"must be csv; every column must be named once, got \['day'\]"),
        ("parquet", b"no parquet at all", "must be parquet; "),
        ("jsonl", b"\xff\n", "must be jsonl; after line 0: every byte must be utf-8"),
    ],
)
def test_file_of_another_format_is_told(workspace, kind, content, told):
    (workspace / "rows").write_bytes(content)
    with pytest.raises(UserError, match=f"source.url: rows {told}" if told.startswith("must") else told):
        fetched(kind=kind, url="rows")


def test_csv_cells_stay_the_text_that_they_are(workspace):
    (workspace / "rows.csv").write_bytes('﻿a,b,c\n007,NA,12345678901234567890\n 1 ,,1e5\n"x\ny",é,nan\n'.encode())
    frame = fetched(kind="csv", url="rows.csv")
    assert list(frame.columns) == ["a", "b", "c"]
    assert frame.fillna("-").to_numpy().tolist() == [
        ["007", "NA", "12345678901234567890"],
        [" 1 ", "-", "1e5"],
        ["x\ny", "é", "nan"],
    ]


def test_long_integers_survive_where_a_column_has_gaps(workspace):
    pd.DataFrame({"a": pd.array([2**60 + 1, None], "Int64")}).to_parquet("rows.parquet")
    assert fetched(kind="parquet", url="rows.parquet")["a"][0] == 2**60 + 1
    (workspace / "rows.jsonl").write_text(f'{{"a": {2**60 + 1}}}\n{{"a": null}}\n')
    assert fetched(kind="jsonl", url="rows.jsonl")["a"][0] == 2**60 + 1


@pytest.fixture
def database(workspace):
    with sqlite3.connect("warehouse.db") as connection:
        TABLE.to_sql("parcels", connection, index=False)
        connection.execute("INSERT INTO parcels VALUES ('003', '2024-01-03', 'B', 1, NULL, 1)")
        connection.execute("CREATE TABLE long (a INTEGER)")
        connection.execute("INSERT INTO long VALUES (?), (NULL)", [2**60 + 1])
    return "sqlite:///warehouse.db"


def test_query_is_bound_to_as_of(database):
    same_cells(fetched(kind="sql", url=database, query="SELECT * FROM parcels WHERE day <= :as_of ORDER BY day"))
    assert len(fetched(kind="sql", url=database, query="SELECT * FROM parcels")) == 3
    assert fetched(kind="sql", url=database, query="SELECT a FROM long")["a"].tolist() == [2**60 + 1, None]


def test_query_is_bound_to_the_first_day_of_interest(database):
    query = "SELECT * FROM parcels WHERE day >= :since AND day <= :as_of ORDER BY day"
    assert fetched(kind="sql", url=database, query=query)["parcel_id"].tolist() == ["001", "002"]
    assert fetched(date(2024, 1, 2), kind="sql", url=database, query=query)["parcel_id"].tolist() == ["002"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT * FROM parcel", "the query must run, and does not; no such table: parcel"),
        ("SELEC 1", 'the query must run, and does not; near "SELEC": syntax error'),
        ("SELECT :other", "the query must run, and does not; .*other"),
        ("SELECT 1 AS day, 2 AS day", r"must deliver every column once, got \['day'\] more than once; rename them"),
    ],
)
def test_query_that_is_wrong_is_told(database, query, told):
    with pytest.raises(UserError, match=told):
        fetched(kind="sql", url=database, query=query)


def test_database_that_is_locked_or_needs_a_driver_is_told(database):
    with sqlite3.connect("warehouse.db", isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="did not answer the query; database is locked"):
            fetched(kind="sql", url=database + "?timeout=0.1", query="SELECT * FROM parcels")
        connection.execute("ROLLBACK")
    with pytest.raises(UserError, match="driver of the database must be installed, and nodialect is not; run pip inst"):
        fetched(kind="sql", url="nodialect://somewhere/db", query="SELECT 1")


def test_address_from_the_environment_is_used_and_never_shown(monkeypatch, web, database):
    with pytest.raises(UserError, match="the environment variable WAREHOUSE must be set, and is not; set it"):
        fetched(kind="csv", url_env="WAREHOUSE")
    monkeypatch.setenv("WAREHOUSE", database)
    assert len(fetched(kind="sql", url_env="WAREHOUSE", query="SELECT * FROM parcels")) == 3
    for kind, url in (
        ("csv", f"{web}/hunter2.csv"),
        ("csv", f"{web}/broken-hunter2"),
        ("csv", f"{web}/secret-hunter2"),
        ("csv", f"{web}/half?sig=abc%2Fhunter2"),
        ("csv", f"{web}/moved?sig=abc%2Fhunter2"),
        ("csv", "hunter2.csv"),
        ("sql", "nodialect://me:hunter2@db/x"),
        ("sql", "sqlite:////no/hunter2.db"),
    ):
        monkeypatch.setenv("WAREHOUSE", url)
        with pytest.raises((UserError, TransientError)) as caught:
            fetched(kind=kind, url_env="WAREHOUSE", **({"query": "SELECT 1"} if kind == "sql" else {}))
        assert "hunter2" not in str(caught.value)


def test_python_source_is_asked_for_the_days_up_to_the_one_that_is_scored(workspace, monkeypatch):
    (workspace / "my_source_of_rows.py").write_text(
        "import pandas as pd\n"
        "def rows(start, end): return pd.DataFrame({'start': [str(start)], 'end': [str(end)]})\n"
        "def number(start, end): return 3\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(workspace)
    frame = fetched(date(2024, 1, 1), kind="python", callable="my_source_of_rows:rows")
    assert frame.iloc[0].tolist() == ["2024-01-01", "2024-01-03"]
    assert fetched(kind="python", callable="my_source_of_rows:rows").iloc[0]["start"] == "None"
    with pytest.raises(UserError, match="must deliver a pandas DataFrame, got int; return a DataFrame"):
        fetched(kind="python", callable="my_source_of_rows:number")
    for name in ("constant", "absent"):
        with pytest.raises(UserError, match=f"callable must name a function, .*; define {name} in my_source_of_rows"):
            fetched(kind="python", callable=f"my_source_of_rows:{name}")


def test_index_of_a_table_written_by_pandas_is_a_column(workspace):
    pd.DataFrame({"parcel_id": ["a", "b"], "x": [1, 2]}).set_index("parcel_id").to_parquet("rows.parquet")
    assert fetched(kind="parquet", url="rows.parquet")["parcel_id"].tolist() == ["a", "b"]


def test_numbers_beside_a_nan_read_as_they_do_without(workspace):
    cells = [1e-05, -0.0, 1e15, 2.0, 0.1]
    read = []
    for more in ([], [float("nan"), None]):
        pq.write_table(pa.table({"x": pa.array([*cells, *more], pa.float64())}), "rows.parquet")
        read.append(as_text(fetched(kind="parquet", url="rows.parquet")["x"]).tolist()[: len(cells)])
    assert read[0] == read[1]
