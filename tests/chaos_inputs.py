"""Hostile input by chance: files of cells that nobody wants, and good files with their bytes damaged.

`inputs(seed, n)` tries n of them against the real `ingest` and `validate` in the working directory and counts how
they ended; it fails where a row is lost, a value changed, or a run stops in any way but with one message.
"""

import contextlib
import csv
import io
import json
import math
import random
import shutil
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from builders import a_product, accept_days

from tasks.ingest import ingest
from tasks.params import Product
from tasks.rows.decisions import file_of
from tasks.rows.partitions import read_tables
from tasks.runtime.errors import UserError
from tasks.runtime.files import folder_sha256, read_json
from tasks.runtime.paths import DATA, Paths
from tasks.validate import validate

AS_OF = date(2024, 1, 3)
N_TRIED = 1000
"""In the whole campaign."""
COLUMNS = ["parcel_id", "day", "depot", "weight_kg", "handed_in", "late"]
NASTY = [
    *["", " ", "0", "-0", "007", "1e5", "1e999", "1e-999", "NaN", "nan", "inf", "-Infinity", "null", "None", "NULL"],
    *[
        "9007199254740993",
        "18446744073709551616",
        "0x1F",
        "1_000",
        "1,5",
        "1.5",
        "½",
        "٣",
        "１２",
        "true",
        "TRUE",
        "1.0",
    ],
    *["2024-01-01", "2024-01-02T25:00", "2024-02-30", "today", "now", "2024", "20240101", "01/02/2024", "0000-00-00"],
    *["2024-01-01T00:00:00+14:00", "2024-01-01T23:59:59.999999999Z", "9999-12-31", "10000-01-01", "-2024-01-01"],
    *[
        '"',
        '""',
        "'",
        ",",
        ";",
        "a,b",
        'a"b',
        "a\nb",
        "a\r\nb",
        "\r",
        "\\",
        "\\N",
        "\t",
        "=1+1",
        "@SUM(A1)",
        "+1",
        "-1",
    ],
    *["\x00", "a\x00b", "\x1b[31m", "\u202eabc", "\ufeff", "\u2028", "é", "e\u0301", "\U0001f600", "../../etc/passwd"],
    *["x" * 5000, "; ", "day: is missing", "dt=2024-01-01", "$HOME", "%s", "{}", "<script>", "' OR 1=1 --"],
]


class Stopped(Exception):
    """The run stopped with one message, and left everything as it was."""


def nightly(product: Product, as_of: date) -> dict[str, Any]:
    """Rows by what became of them. Raises Stopped; fails where the law of accounting does not hold."""
    paths = Paths(product.name)
    if not file_of(product.name, product.scored_day(as_of)).exists():
        accept_days(product.scored_day(as_of))  # a day may have no row here
    for stage, kept in ((ingest, DATA), (validate, paths.valid)):
        before = folder_sha256(kept)
        said = None
        try:
            stage(product, as_of)
        except UserError as error:
            said = str(error)
        if said is not None:
            assert folder_sha256(kept) == before, "a run that stops must leave everything as it was"
            raise Stopped(said)
    told, judged = read_json(paths.report("ingest.json")), read_json(paths.report("validation.json"))
    bad = read_tables(paths.quarantine / "rows", ["reasons"])
    valid = read_tables(paths.valid / "rows")
    stored = read_tables(paths.raw / "rows")
    assert told["rows_delivered"] == sum(
        told[name]
        for name in (
            *("rows_new", "rows_late", "rows_changed", "rows_left", "rows_of_stored_days", "rows_superseded"),
            *("rows_waiting_without_a_date", "rows_later_than_the_night"),
        )
    )
    assert told["rows_total"] == len(stored) == judged["rows"]["rows_in"] == len(valid) + len(bad)
    assert bad["reasons"].str.len().gt(0).all()
    return {
        "delivered": told["rows_delivered"],
        "later": told["rows_later_than_the_night"],
        "valid": len(valid),
        "quarantined": len(bad),
        "reasons": judged["reasons"],
        "first_reasons": Counter(bad["reasons"].str.split("; ").str[0]),
    }


def product(kind: str, **source: str) -> Product:
    return a_product(source={"kind": kind, "url": "rows", **source}, expectations=[])


def inputs(seed: int, n: int) -> dict[str, int]:
    """Try `n` hostile files, the same ones for the same seed; how many ended in which way, and their rows."""
    chance, counts = random.Random(seed), Counter()
    for _ in range(n):
        shutil.rmtree(DATA, ignore_errors=True)
        kind = chance.choice(["csv", "jsonl", "parquet"])
        cells = _cells(chance)
        content = _written(cells, kind, chance)
        damaged = chance.random() < 0.6
        Path("rows").write_bytes(_damaged(content, chance) if damaged else content)
        try:
            ended = nightly(product(kind), AS_OF)
        except Stopped:
            counts["stopped with a message"] += 1
            assert damaged, "cells alone must not stop a run"
            continue
        counts["accounted for"] += 1
        counts["rows"] += ended["delivered"]
        if not damaged:
            assert ended["delivered"] == len(cells)
            _same_values(cells)
    return dict(counts)


def _cells(chance: random.Random) -> list[dict[str, str]]:
    """Rows of text, each with up to three nasty cells; the first is good, so that there is a night."""
    rows = []
    for i in range(chance.randint(1, 12)):
        day = f"2024-01-0{chance.randint(1, 5)}"
        row = dict(
            zip(COLUMNS, [f"p{i}", day, "A", str(i / 4), f"{day}T09:00", chance.choice(["0", "1", ""])], strict=True)
        )
        for name in chance.choices(COLUMNS, k=chance.randint(0, 3)) if i else []:
            row[name] = chance.choice(NASTY)
        rows.append(row)
    rows[0]["day"] = "2024-01-01"
    return rows


def _written(rows: list[dict[str, str]], kind: str, chance: random.Random) -> bytes:
    if kind == "jsonl":
        ascii_only = chance.random() < 0.5
        return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()
    if kind == "parquet":
        file = io.BytesIO()
        codec = chance.choice(["none", "snappy", "zstd"])
        pq.write_table(pa.Table.from_pylist(rows), file, compression=codec, write_page_checksum=True)
        return file.getvalue()
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text,
        COLUMNS,
        quoting=chance.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        lineterminator=chance.choice(["\n", "\r\n"]),
    )
    writer.writeheader()
    writer.writerows(rows)
    return (b"\xef\xbb\xbf" if chance.random() < 0.3 else b"") + text.getvalue().encode()


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """`content` with one to three things wrong with its bytes."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content) + 1)
        to = min(len(content), at + chance.randint(1, 40))
        noise = bytes(chance.choices(b'\x00\xff\xfe",\n\r;{}[]:\\ 09aNe-', k=chance.randint(1, 4)))
        content = chance.choice(
            [
                content[:at],
                content[:at] + content[to:],
                content[:at] + noise + content[at:],
                content[:at] + noise + content[to:],
                content[:to] + content[at:],
            ]
        )
    return content


def _same_values(cells: list[dict[str, str]]) -> None:
    """Every valid row must hold what was delivered, cell by cell, as Python itself reads it."""
    delivered = {}
    for row in cells:
        delivered.setdefault(row["parcel_id"], []).append(row)
    for row in read_tables(Paths("tiny").valid / "rows").to_dict("records"):
        candidates = delivered[row["parcel_id"]]
        assert any(
            _is_text(row["depot"], cell["depot"])
            and _is_number(row["weight_kg"], cell["weight_kg"])
            and _is_time(row["day"], cell["day"])
            and _is_time(row["handed_in"], cell["handed_in"])
            for cell in candidates
        ), (row, candidates)


def _is_text(value: Any, cell: str) -> bool:
    return value == cell or (pd.isna(value) and cell == "")


def _is_number(value: float, cell: str) -> bool:
    if math.isnan(value):
        return cell == ""
    return value == float(cell) and (not cell.lstrip("+-").isdigit() or int(cell) == int(value))


def _is_time(value: pd.Timestamp, cell: str) -> bool:
    if pd.isna(value):
        return cell == ""
    told = datetime.fromisoformat(cell)
    told = told.astimezone(UTC).replace(tzinfo=None) if told.tzinfo else told
    return value.to_pydatetime() == told.replace(microsecond=0)


def whole(folder: Path, seed: int) -> dict[str, int]:
    """N_TRIED hostile files; returns rows for the table."""
    with contextlib.chdir(folder):
        counts = inputs(seed, N_TRIED)
    return {
        "input: hostile files tried": N_TRIED,
        "input:   every row accounted for": counts["accounted for"],
        "input:   stopped with one message, nothing changed": counts["stopped with a message"],
        "input: rows delivered and accounted for": counts["rows"],
    }
