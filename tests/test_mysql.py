"""Oracle: what a real MariaDB server itself writes for each value, cast to text by its own query."""

import os
import pwd
import shutil
import subprocess
import tempfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy
from builders import a_product
from conftest import free_port

from tasks.rows.casting import cast_column, cast_target
from tasks.rows.raw_archive import storable
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")

VALUES = {
    "tinyint": ["-128", "7"],
    "boolean": ["true", "false"],
    "smallint unsigned": ["65535"],
    "bigint": ["9007199254740993", "-9223372036854775808", "1000"],
    "bigint unsigned": ["18446744073709551615"],
    "int(5) zerofill": ["42"],
    "decimal(12,4)": ["10.5000", "-0.0001"],
    "decimal(40,0)": ["1234567890123456789012345678901234567890"],
    "float": ["0.1", "-3.4e38"],
    "double": ["0.1", "1e308", "1000"],
    "bit(1)": ["b'1'", "b'0'"],
    "bit(12)": ["b'101000000001'"],
    "char(3)": ["'ab '", "'007'"],
    "varchar(9) character set latin1": ["'ä'", "''"],
    "text": ["'ä|b'", "'NaN'", "'NULL'"],
    "enum('web', 'app')": ["'web'"],
    "set('a', 'b')": ["'a,b'"],
    "date": ["'2024-02-29'", "'9999-12-31'", "'0000-00-00'", "'2024-00-10'"],
    "datetime": ["'2024-02-29 12:30:15'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'"],
    "datetime(6)": ["'2024-02-29 12:30:15.123456'"],
    "timestamp null": ["'2024-03-10 02:30:00'"],
    "time": ["'12:30:15'", "'-12:30:15'", "'838:59:59'"],
    "time(6)": ["'-00:00:00.250000'"],
    "year": ["2024"],
    "uuid": ["'00000000-0000-4000-8000-00000000000a'"],
    "inet6": ["'fe80::1'"],
}
BYTES = {"blob": ["x'00ff'"], "binary(4)": ["x'00ff'"], "point": ["point(1, 2)"]}


@pytest.fixture(scope="module")
def server():
    """A server on a loopback port, with a password-free user; yields its address."""
    if shutil.which("mariadbd") is None:
        pytest.skip("Debian's server is not installed: apt-get install mariadb-server")
    home, port = Path(tempfile.mkdtemp(prefix="my")), free_port()
    user = f"--user={pwd.getpwuid(os.getuid()).pw_name}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    make = [
        "mariadb-install-db",
        "--no-defaults",
        user,
        f"--datadir={home}/data",
        "--auth-root-authentication-method=normal",
    ]
    subprocess.run(make, check=True, **quiet)
    options = [f"--datadir={home}/data", f"--socket={home}/socket", f"--port={port}", "--bind-address=127.0.0.1"]
    process = subprocess.Popen(["mariadbd", "--no-defaults", user, *options], **quiet)
    try:
        subprocess.run(
            ["mariadb-admin", "--no-defaults", f"--socket={home}/socket", "-uroot", "--wait=60", "ping"],
            check=True,
            **quiet,
        )
        yield f"mysql+pymysql://root@127.0.0.1:{port}/test"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def tables(server):
    """A table for each type, named by its place in VALUES or BYTES."""
    engine = sqlalchemy.create_engine(server)
    with engine.begin() as connection:
        connection.exec_driver_sql("set sql_mode = ''")  # which lets dates of zeros in
        for number, (type_, values) in enumerate({**VALUES, **BYTES}.items()):
            connection.exec_driver_sql(f"create table t{number} (i int auto_increment primary key, v {type_})")
            cells = ", ".join(f"({value})" for value in [*values, "null"])
            connection.exec_driver_sql(f"insert into t{number} (v) values {cells}")
    engine.dispose()
    return server


def of_type(address, type_, kind):
    number = [*VALUES, *BYTES].index(type_)
    written = "cast(v + 0 as char)" if type_.startswith("bit") else "hex(v)" if type_ in BYTES else "cast(v as char)"
    query = f"select i as parcel_id, '2024-01-01' as day, v as depot, {written} as note, 1 as late from t{number}"
    columns = {"depot": kind, "note": "text"}
    source = {"kind": "sql", "url": address, "query": query}
    return fetch(a_product(source=source, columns=columns, expectations=[]), None, date(2024, 1, 2))


def same(got, written):
    """Whether two texts mean the same value."""
    if got == written:
        return True
    try:
        return Decimal(got) == Decimal(written)
    except ArithmeticError:
        return got.removesuffix("0" * 6).removesuffix(".") == written


@pytest.mark.parametrize("type_", VALUES)
def test_cell_of_every_mysql_type_is_equal_missing_or_told(tables, type_):
    for kind in ("number", "category", "time"):
        frame = of_type(tables, type_, kind)
        typed, misfit = cast_column(storable(frame["depot"]), kind)
        for written, got, bad in zip(frame["note"], typed, misfit, strict=True):
            if written is None:
                assert pd.isna(got)
                assert not bad
            elif kind == "category":
                assert same(got, written), (got, written)
            elif bad or (written, kind) == ("NaN", "number"):
                assert pd.isna(got)
            elif kind == "number":
                assert Decimal(got) == Decimal(written) or "." in written or "e" in written
                assert got == float(written)
            else:
                assert got == datetime.fromisoformat(written).replace(microsecond=0)
        if kind == "number" and type_ in ("tinyint", "smallint unsigned", "decimal(12,4)", "bit(1)", "bit(12)", "year"):
            assert not misfit.any()
        if kind == "time" and type_.startswith("date"):
            assert misfit.tolist() == [str(each).find("-00") > 0 for each in frame["note"]]


@pytest.mark.parametrize("type_", BYTES)
def test_column_of_bytes_is_refused_by_name(tables, type_):
    with pytest.raises(UserError, match="all cells of depot are lists, objects or bytes"):
        of_type(tables, type_, "category")


def test_bit_is_a_label_and_a_colon_or_percent_sign_of_a_query_passes(tables):
    number = [*VALUES].index("bit(1)")
    query = (
        f"select i as parcel_id, date_format('2024-01-01 12:30', '%Y-%m-%d') as day, '12:30' like '%:3%' as depot, "
        f"'n' as note, v as late from t{number} where '2024-01-01' <= :as_of"
    )
    product = a_product(
        source={"kind": "sql", "url": tables, "query": query}, columns={"depot": "number"}, expectations=[]
    )
    frame = fetch(product, None, date(2024, 1, 2))
    assert frame[["day", "depot"]].drop_duplicates().to_numpy().tolist() == [["2024-01-01", 1]]
    labels, misfit = cast_target(storable(frame["late"]), product.target)
    assert labels[:2].tolist() == [1, 0]
    assert pd.isna(labels[2])
    assert not misfit.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("/test", "/nosuch"), "Unknown database"),
        (None, "t999' doesn't exist"),
    ],
)
def test_wrong_name_is_a_users_mistake(server, change, words):
    source = {"kind": "sql", "url": server.replace(*change) if change else server, "query": "select * from t999"}
    with pytest.raises(UserError, match=words):
        fetch(a_product(source=source), None, date(2024, 1, 2))


def test_server_that_does_not_answer_may_later():
    source = {"kind": "sql", "url": "mysql+pymysql://root@127.0.0.1:1/test", "query": "select 1"}
    with pytest.raises(TransientError, match="the database did not answer"):
        fetch(a_product(source=source), None, date(2024, 1, 2))
