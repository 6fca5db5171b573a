"""Oracle: planted values, looked for in every byte that a run leaves; Python's own hmac."""

import hashlib
import hmac
import json
import os
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product, accept_days, declared, mistakes
from conftest import ROOT, call

from tasks.ingest import ingest
from tasks.rows.partitions import read_tables
from tasks.rows.personal_data import analyzer, protect
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths
from tasks.validate import validate

KEY = "a key of the tests, long enough"
NAMES = ("James Smith", "Fatima Khan", "Olga Petrova", "Kwame Mensah", "Mary Murphy")
MAIL, PHONE, CARD = "john.doe@example.com", "+1 415 555 2671", "4111 1111 1111 1111"
SCORED_DAY = date(2024, 1, 3)
COLUMNS = {"depot": "category", "weight_kg": "number", "note": "text"}


@pytest.fixture(autouse=True)
def key(workspace, monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_PII_KEY", KEY)


def tiny(pii, kind="csv"):
    source = {"kind": kind, "url": f"rows.{kind}"}
    return a_product(pii=pii, columns=COLUMNS, source=source, expectations=[])


def deliver(**changes):
    frame = pd.DataFrame(
        {
            "parcel_id": [f"customer-{i}" for i in range(5)],
            "day": ["2024-01-01", "2024-01-01", "2024-01-01", "2024-01-02", "no date"],
            "depot": ["A", "B", "A", "B", "A"],
            "weight_kg": ["1", "2", "heavy", "3", "4"],
            "note": [f"{name} called about the invoice; write to {MAIL}, {PHONE}, card {CARD}." for name in NAMES],
            "street": "12 Planted Lane",
            "late": ["0", "1", "0", "", ""],
        }
    )
    frame.assign(**changes).to_csv("rows.csv", index=False)
    return frame


def left():
    """All that a run has written, Parquet's pages as text."""
    files = [file for file in Path("data").rglob("*") if file.is_file()]
    assert {file.relative_to("data").parts[0] for file in files} >= {"raw", "valid", "quarantine", "reports"}
    return "\n".join(
        pd.read_parquet(file).to_csv() if file.suffix == ".parquet" else file.read_bytes().decode("utf-8", "replace")
        for file in files
    )


def test_what_is_declared_reaches_nothing_that_is_stored():
    deliver()
    product = tiny({"parcel_id": "hash", "note": "redact", "street": "drop"})
    ingest(product, date(2024, 1, 2))
    accept_days(SCORED_DAY)
    validate(product, date(2024, 1, 2))
    text = left()
    found = [planted for planted in (*NAMES, MAIL, PHONE, CARD, "customer-", "Planted Lane") if planted in text]
    assert not found
    assert "<PERSON> called about the invoice; write to <EMAIL_ADDRESS>, <PHONE_NUMBER>, card <CREDIT_CARD>." in text
    assert len(read_tables(Paths("tiny").quarantine / "rows")) == 2


def test_planted_values_are_there_where_nothing_is_declared():
    deliver()
    ingest(tiny({}), date(2024, 1, 2))
    accept_days(SCORED_DAY)
    validate(tiny({}), date(2024, 1, 2))
    assert all(planted in left() for planted in (*NAMES, MAIL, PHONE, CARD, "customer-"))


def test_hash_is_keyed_and_joins_labels_to_rows(monkeypatch):
    frame = deliver()
    product = tiny({"parcel_id": "hash"})
    hashed = protect(frame, product)["parcel_id"]
    wanted = [hmac.new(KEY.encode(), cell.encode(), hashlib.sha256).hexdigest()[:32] for cell in frame["parcel_id"]]
    assert hashed.tolist() == wanted
    assert protect(frame.assign(parcel_id=[1, 2, 1, None, 1.0]), product)["parcel_id"].nunique() == 2
    ingest(product, date(2024, 1, 2))
    labels = pd.concat(map(pd.read_parquet, (Paths("tiny").raw / "labels").glob("*.parquet")))
    assert set(labels["parcel_id"]) <= set(wanted)
    monkeypatch.setenv("LAMPLIGHTER_PII_KEY", "another key, long enough")
    assert not set(protect(frame, product)["parcel_id"]) & set(wanted)
    for key in ("", "short"):
        monkeypatch.setenv("LAMPLIGHTER_PII_KEY", key)
        with pytest.raises(
            UserError, match=r"LAMPLIGHTER_PII_KEY must hold the key .* at least 16 characters"
        ) as caught:
            protect(frame, product)
        assert "short" not in str(caught.value).replace("at least", "")


def test_row_that_cannot_be_read_stops_the_run_where_its_cells_might_be_personal(workspace):
    deliver()
    with Path("rows.csv").open("a") as file:
        file.write("customer-9,James Smith\n")
    with pytest.raises(UserError, match="1 cannot be read, on lines 7; mend them") as caught:
        ingest(tiny({"parcel_id": "hash"}), date(2024, 1, 2))
    assert "James" not in str(caught.value)
    assert not (workspace / "data").exists()


def test_objects_and_lists_are_protected_as_well():
    row = {"parcel_id": ["customer-1"], "day": "2024-01-01", "depot": "A", "weight_kg": 1, "late": 1}
    good = {**row, "parcel_id": "customer-2", "note": "fine"}
    lines = [{**row, "note": {"from": "James Smith", "mail": MAIL}}, good]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    product = tiny({"parcel_id": "hash", "note": "redact"}, "jsonl")
    ingest(product, date(2024, 1, 2))
    accept_days(SCORED_DAY)
    validate(product, date(2024, 1, 2))
    assert not [planted for planted in ("customer-", MAIL, "James") if planted in left()]
    assert "parcel_id: is no single value" in left()


def test_message_of_missing_packages_names_a_command_that_installs_them_as_pinned(monkeypatch):
    frame = deliver()
    analyzer.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(UserError, match=r"run make pii$"):
        protect(frame, tiny({"note": "redact"}))
    planned = call(["make", "--dry-run", "--always-make", "pii"], ROOT, dict(os.environ))
    (command,) = [line for line in planned.splitlines() if line.endswith("--extra pii")]
    assert "--constraint constraints.txt --requirements pyproject.toml" in command
    here = [part.replace(".venv/bin", str(Path(sys.executable).parent)) for part in command.split()]
    call([*here, "--dry-run", "--offline"], ROOT, dict(os.environ))


def test_ways_and_columns_that_do_not_fit_are_told():
    for pii, told in (
        ({"depot": "mask"}, "pii.depot must be one of drop, hash, salted, redact, got 'mask'"),
        ({"depot": "drop"}, "pii.depot must not be a column that is used, got drop"),
        ({"weight_kg": "hash"}, "pii.weight_kg must be a category or text of key or columns, got hash"),
        ({"late": "hash"}, "pii.late must be a category or text"),
        ({"street": "redact"}, "pii.street must be a category or text"),
    ):
        (line,) = mistakes(declared(pii=pii))
        assert told in line
