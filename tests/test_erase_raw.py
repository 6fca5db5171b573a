"""Oracle: the law that raw data without a row are, byte for byte, those of a source that never had it."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product

from model.features.subwords import train_exact_tokenizer, train_tokenizer
from tasks.erasure.raw import RawErasure
from tasks.erasure.subject import Subject, subject_of
from tasks.ingest import ingest
from tasks.runtime.paths import Paths

FIRST = date(2024, 1, 1)
SECRET = b"secret"


def rows(n_days, per_day=4, **changes):
    days = [FIRST + timedelta(days=i) for i in range(n_days) for _ in range(per_day)]
    n = len(days)
    frame = pd.DataFrame(
        {
            "parcel_id": [f"p{i:05d}" for i in range(n)],
            "day": [day.isoformat() for day in days],
            "depot": [["A", "B", "C"][i % 3] for i in range(n)],
            "weight_kg": [f"{i}.5" for i in range(n)],
            "handed_in": [f"{day}T08:00:00" for day in days],
            "late": [i % 2 for i in range(n)],
        }
    )
    for place, value in changes.items():
        row, column = place.split("__")
        frame.loc[frame["parcel_id"] == row, column] = value
    return frame


def product(**changes):
    source = {"kind": "csv", "url": "source/parcels.csv", "late_days": 30}
    target = {"name": "late", "task": "binary", "delay_days": 1, "late_days": 30}
    return a_product(source=source, target=target, **changes)


def deliver(folder: Path, deliveries, monkeypatch, without=()):
    """Ingest deliveries on following days into a folder, each without some keys."""
    (folder / "source").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for as_of, frame in deliveries:
        frame[~frame["parcel_id"].isin(without)].to_csv("source/parcels.csv", index=False)
        ingest(product(), as_of)
    return folder / Paths("tiny").raw


def content(raw: Path):
    """The bytes of all files, and what the index says of each date, but for the span of days that labels may be of."""
    files = [file for file in sorted(raw.rglob("*")) if file.is_file()]
    found = {str(file.relative_to(raw)): file.read_bytes() for file in files if file.suffix == ".parquet"}
    for file in (raw / "index").iterdir():
        years = json.loads(file.read_bytes())
        for entry in years["labels"].values():
            entry.pop("of", None)
        found[file.name[:4]] = years
    return found


def erased(raw: Path, key: str) -> RawErasure:
    subject = subject_of(product(), key, SECRET)
    if not subject.is_of_keys:
        for file in raw.rglob("*.parquet"):
            subject.learn_from(file)
    erasure = RawErasure(raw, subject, subject.is_in_file)
    erasure.erase()
    return erasure


HISTORIES = {
    "on time": [(FIRST + timedelta(days=5), rows(7))],
    "in several runs": [(FIRST + timedelta(days=5), rows(7)), (FIRST + timedelta(days=6), rows(8))],
    "changed beside it": [
        (FIRST + timedelta(days=5), rows(7)),
        (FIRST + timedelta(days=6), rows(8, p00010__weight_kg="9.9", p00009__depot="B")),
        (FIRST + timedelta(days=7), rows(9, p00010__weight_kg="8.8", p00009__late=0, p00011__depot="C")),
    ],
    "of old months": [(FIRST + timedelta(days=150), rows(152))],
}


@pytest.mark.long
@pytest.mark.parametrize("key", ["p00009", "p00010", "p00011"])
@pytest.mark.parametrize("name", HISTORIES)
def test_raw_data_are_as_if_the_row_had_never_been_delivered(name, key, tmp_path, monkeypatch):
    raw = deliver(tmp_path / "with", HISTORIES[name], monkeypatch)
    never = deliver(tmp_path / "never", HISTORIES[name], monkeypatch, without=[key])
    erasure = erased(raw, key)
    assert sum(erasure.rows.values()) == 1
    now, wanted = content(raw), content(never)
    assert now.keys() == wanted.keys()
    assert [place for place in now if now[place] != wanted[place]] == []


def test_late_rows_and_all_rows_of_a_value_go_with_their_labels(tmp_path, monkeypatch):
    late = rows(7)
    first = late[~late["parcel_id"].isin(["p00008", "p00010"])]
    deliveries = [(FIRST + timedelta(days=5), first), (FIRST + timedelta(days=6), rows(8, p00010__depot="Z"))]
    raw = deliver(tmp_path / "with", deliveries, monkeypatch)
    gone = [*late[late["depot"] == "B"]["parcel_id"], "p00028", "p00031"]
    gone = [key for key in gone if key != "p00010"]
    never = deliver(tmp_path / "never", deliveries, monkeypatch, without=gone)
    erased(raw, "depot=B")
    now, wanted = content(raw), content(never)
    assert [place for place in wanted if now.get(place) != wanted[place]] == []


def test_nothing_is_changed_where_the_row_is_not(tmp_path, monkeypatch):
    raw = deliver(tmp_path, HISTORIES["on time"], monkeypatch)
    before = {file: file.read_bytes() for file in raw.rglob("*") if file.is_file()}
    assert not erased(raw, "p99999").rows
    assert before == {file: file.read_bytes() for file in raw.rglob("*") if file.is_file()}
    shutil.rmtree(raw)


def test_subject_is_known_by_a_hash_that_tells_nothing_without_the_key():
    one, other = (subject_of(product(), "p00009", secret) for secret in (SECRET, b"another"))
    assert one.hmac != other.hmac
    assert "p00009" not in one.hmac
    assert isinstance(one, Subject)


@pytest.mark.parametrize(
    ("train", "name"),
    [(train_tokenizer, "Zabriskie"), (train_tokenizer, "ZÄBRISKIE"), (train_exact_tokenizer, "Zabriskie")],
    ids=["lower case", "without accents", "of bytes"],
)
def test_word_in_a_vocabulary_of_texts_is_found_as_it_stands_there(train, name, tmp_path):
    """Vocabularies are those that the project's own tokenizers learn."""
    subject = subject_of(product(columns={"note": "text"}, expectations=[]), f"note={name}", SECRET)
    for file, text in (("learnt", f"a letter of {name} today"), ("other", "a letter of nobody today")):
        train([text] * 3).save(str(tmp_path / file))
    assert [subject.is_in_file(tmp_path / file) for file in ("learnt", "other")] == [True, False]
