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
import pytest
from conftest import free_port
from test_params import declared

from tasks import params
from tasks.errors import PassingError, UserError
from tasks.fetch import fetch

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


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def product(**source):
    return params.parse(declared(source=source)).product("tiny")


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
            if self.path.startswith("/broken"):
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
    for url in (f"{web}/broken.csv", f"http://127.0.0.1:{free_port()}/rows.csv"):
        with pytest.raises(PassingError, match="could not be read"):
            fetched(kind="csv", url=url)


def test_jsonl_names_the_line_that_is_broken(workspace):
    file = workspace / "rows.jsonl"
    file.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(UserError, match=r"rows.jsonl must be jsonl; line 3: "):
        fetched(kind="jsonl", url="rows.jsonl")
    file.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(UserError, match=r"line 2: must be an object, got list"):
        fetched(kind="jsonl", url="rows.jsonl")


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("csv", b"", "must be csv; No columns"),
        ("csv", b"a,b\n1,2\n1,2,3\n", "must be csv; .*line 3"),
        ("csv", b"a,b\n1,2,3\n4,5,6\n", "rows must have as many cells as the header, 2, and have more"),
        ("csv", b"a\n\xff\xfe\n", "must be csv; .*utf-8"),
        ("parquet", b"no parquet at all", "must be parquet; "),
        ("jsonl", b"\xff\n", "must be jsonl; line 1"),
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


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT * FROM parcel", "the query must run, and does not; no such table: parcel"),
        ("SELEC 1", 'the query must run, and does not; near "SELEC": syntax error'),
        ("SELECT :other", "the query must run, and does not; .*other"),
        ("SELECT 1 AS a, 2 AS a", r"must deliver every column once, got \['a'\] more than once; rename them"),
    ],
)
def test_query_that_is_wrong_is_told(database, query, told):
    with pytest.raises(UserError, match=told):
        fetched(kind="sql", url=database, query=query)


def test_database_that_is_locked_or_needs_a_driver_is_told(database):
    with sqlite3.connect("warehouse.db", isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(PassingError, match="did not answer the query; database is locked"):
            fetched(kind="sql", url=database + "?timeout=0.1", query="SELECT * FROM parcels")
        connection.execute("ROLLBACK")
    with pytest.raises(UserError, match="the query must run, and does not"):
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
        ("csv", "hunter2.csv"),
        ("sql", "nodialect://me:hunter2@db/x"),
        ("sql", "sqlite:////no/hunter2.db"),
    ):
        monkeypatch.setenv("WAREHOUSE", url)
        with pytest.raises((UserError, PassingError)) as caught:
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
