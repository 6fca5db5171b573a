"""Oracle: Python's own hmac with the salt that lies in a real S3 server; every version of every object, read back."""

import hashlib
import hmac
import json
import multiprocessing
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pytest
from builders import a_product
from conftest import ROOT
from test_store import lose_answers

from tasks.commands.upkeep.forget import forget_subject
from tasks.erasure.subject import subject_of
from tasks.ingest import ingest
from tasks.publication.manifests import decode_checked
from tasks.publication.object_store import Store
from tasks.publication.salts.table import DIGITS, SaltTable
from tasks.rows.personal_data import protect, subject_id
from tasks.rows.raw_archive import CHANGES, RawIndex
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.paths import Paths

pytestmark = [pytest.mark.s3, pytest.mark.slow]
KEY = "a key of the tests, long enough"
COLUMNS = {"depot": "category", "weight_kg": "number"}
FIRST, SECOND, THIRD = date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4)
WHO = ("asked for in a letter", "Ann", date(2024, 3, 1))
LABELS = ["salts: an object is created", "salts: new ones are stored"]
LABELS_OF_FORGETTING = ["forget: the salt is deleted", "forget: a version is deleted"]


@pytest.fixture
def url(s3_here, workspace, monkeypatch):
    """An address in a bucket that keeps versions."""
    monkeypatch.setenv("LAMPLIGHTER_PII_KEY", KEY)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], region_name="us-east-1")
    bucket = f"salts-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return f"s3://{bucket}/predictions"


def salted(url, **changes):
    pii = {"parcel_id": "salted", "depot": "salted"}
    source = {"kind": "csv", "url": "rows.csv", "late_days": 30}
    return a_product(
        **{"pii": pii, "columns": COLUMNS, "expectations": [], "source": source, "publish": {"url": url}} | changes
    )


def deliver(*names, folder=Path()):
    rows = pd.DataFrame({"parcel_id": names, "day": "2024-01-01", "depot": "Rome", "weight_kg": "1", "late": "0"})
    rows.to_csv(folder / "rows.csv", index=False)


def stored(folder=Path()):
    raw = folder / Paths("tiny").raw / "rows"
    return pd.concat(map(pd.read_parquet, sorted(raw.glob("*.parquet"))), ignore_index=True)


def table(url):
    return SaltTable(Store(url), "tiny")


def salts(url):
    """What all objects have, as JSON."""
    objects = [json.loads(Store(url).read(table(url).key(digit)).body) for digit in DIGITS]
    return {name: salt for each in objects for name, salt in each["salts"].items()}


def versions(url):
    """The bodies of every version of every object of the bucket."""
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], region_name="us-east-1")
    bucket = Store(url).bucket
    return [
        client.get_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])["Body"].read().decode()
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket)
        for each in page.get("Versions", [])
    ]


def digest(content):
    return hmac.new(KEY.encode(), content, hashlib.sha256).hexdigest()[:32]


def apart(work, label, *arguments):
    """Do work in a copy of this process, which is killed at a label; its exit code."""
    process = multiprocessing.get_context("fork").Process(target=_killed_at, args=(label, work, *arguments))
    process.start()
    process.join(120)
    return process.exitcode


def _killed_at(label, work, *arguments):
    os.environ["LAMPLIGHTER_CRASH_AT"] = label
    work(*arguments)


def ingest_in(url, folder):
    os.chdir(folder)
    ingest(salted(url), FIRST)


def forget_ann(url):
    return forget_subject(salted(url), "parcel_id=ann", *WHO, yes=True)


def test_each_value_is_hashed_with_a_salt_of_its_own(url):
    product = salted(url)
    rows = pd.DataFrame({"parcel_id": ["ann", "bob", None], "depot": ["bob", "Rome", "Rome"], "weight_kg": [1, 2, 3]})
    hashed = protect(rows, product, table(url).minting(True))
    found = salts(url)
    assert len({*found.values()}) == 3
    for name in ("ann", "bob", "Rome"):
        salt = found[digest(f"tiny\0{name}".encode())]
        wanted = digest(bytes.fromhex(salt) + name.encode())
        assert {*hashed.where(rows == name).melt()["value"].dropna()} == {wanted}, "the same in every column"
    assert hashed["parcel_id"].isna().tolist() == [False, False, True]
    assert protect(rows, product, table(url).mint).equals(hashed), "another process finds the same"
    other = protect(rows, replace(product, name="other"), SaltTable(Store(url), "other").minting(True))
    assert not {*other["parcel_id"].dropna()} & {*hashed["parcel_id"].dropna()}, "products cannot be joined"
    assert decode_checked(Store(url).read(table(url).key("0")))["product"] == "tiny"
    with pytest.raises(ValueError, match="nothing was given that keeps salts"):
        protect(rows, product)


@pytest.mark.long
def test_writers_that_meet_a_subject_at_once_agree(url):
    table(url).minting(True)([])
    names = [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(60)]
    random = np.random.default_rng(0)
    orders = [[*random.permutation(names)] for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda order: table(url).mint([str(each) for each in order]), orders))
    assert all(each == salts(url) for each in found)
    assert len(found[0]) == len(names)


def test_answer_that_is_lost_leaves_one_salt(url):
    table(url).minting(True)([])
    subject = "a" * 32
    losing = table(url)
    lose_answers(losing.store, "PutObject", times=9)
    assert losing.mint([subject]) == salts(url), "its own write is found by its bytes"
    refused = table(url)
    lose_answers(refused.store, "PutObject", effect=False)
    with pytest.raises(TransientError):
        refused.mint(["b" * 32])
    assert refused.known(["b" * 32]) == {}, "what was not stored is known to nobody"
    assert refused.mint(["b" * 32]).items() <= salts(url).items()


def test_run_that_is_killed_is_followed_by_one_with_the_same_bytes(url, tmp_path):
    for label in LABELS:
        folder = tmp_path / label.replace(" ", "-")
        folder.mkdir()
        deliver("ann", "bob", folder=folder)
        assert apart(ingest_in, label, url, folder) == -9
        assert not (folder / Paths("tiny").raw / "index.json").exists()
    before = salts(url)
    assert 1 <= len(before) < 3, "killed between two objects"
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        deliver("ann", "bob", folder=tmp_path / name)
        assert apart(ingest_in, "", url, tmp_path / name) == 0
    assert before.items() <= salts(url).items()
    one, other = (sorted((tmp_path / name / Paths("tiny").raw).rglob("*.parquet")) for name in ("one", "other"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_forgotten_person_is_linked_to_nothing_and_kept_out(url):
    product = salted(url)
    deliver("ann", "bob")
    ingest(product, FIRST)
    before, salt = stored(), salts(url)[subject_id(product, "ann")]
    assert "has a salt; nothing was changed" in forget_subject(product, "ann", *WHO)
    for label in LABELS_OF_FORGETTING:
        assert apart(forget_ann, label, url) == -9
    assert "was forgotten on 2024-03-01 by Ann (asked for in a letter)" in forget_ann(url)
    assert not [body for body in versions(url) if salt in body], "in no object, and no version of one"
    assert subject_id(product, "ann") not in salts(url)
    deliver("ann", "bob", "cleo")
    ingest(product, SECOND)
    report = json.loads(Paths("tiny").report("ingest.json").read_text())
    assert (report["rows_delivered"], report["rows_erased"]) == (3, 1)
    left_out = ("rows_delivered", "rows_withdrawn", "rows_total")
    counted = [n for name, n in report.items() if name.startswith("rows_") and name not in left_out]
    assert report["rows_delivered"] == sum(counted)
    assert stored().equals(before), "what is stored stays as it is"
    (late,) = (Paths("tiny").raw / CHANGES).glob("*.parquet")
    assert pd.read_parquet(late)["parcel_id"].nunique() == 1, "Cleo alone"
    with pytest.raises(UserError, match=r"it has no salt; .* or was forgotten"):
        subject_of(product, "ann", b"secret")


def test_erasure_finds_rows_by_the_value_that_is_salted(url):
    product = salted(url)
    deliver("ann", "bob")
    ingest(product, FIRST)
    subject = subject_of(product, "ann", b"secret")
    assert subject.is_in(stored()).sum() == 1
    with pytest.raises(UserError, match="KEY must be of somebody whom tiny knows"):
        subject_of(product, "cleo", b"secret")
    assert len(salts(url)) == 3, "who is asked for gets no salt"


def test_forgetting_reaches_salts_of_simulations(url):
    product = salted(url)
    simulated = Store(f"s3://{Store(url).bucket}/simulations/tiny-1")
    for each in (table(url), SaltTable(simulated, "tiny")):
        each.minting(True)([subject_id(product, "ann")])
    forget_ann(url)
    assert not SaltTable(simulated, "tiny").known([subject_id(product, "ann")])


def test_lost_salts_stop_the_run_rather_than_be_made_anew(url):
    product = salted(url)
    deliver("ann")
    ingest(product, FIRST)
    for digit in DIGITS:
        Store(url).delete(table(url).key(digit))
    (told,) = table(url).missing({})
    assert told.startswith(
        f"16 of 16 objects of salts, such as {url}/tiny/_salts/0.json, by which stored rows are hashed"
    )
    deliver("ann", "bob")
    with pytest.raises(UserError, match=r"_salts/.\.json: must have the salts by which stored rows of tiny are hashed"):
        ingest(product, SECOND)
    Store(url).replace(table(url).key("0"), b'{"format": 1}', None)
    lost, damaged = table(url).missing({})
    assert lost.startswith("15 of 16 objects of salts")
    assert damaged.startswith(f"{url}/tiny/_salts/0.json: salts must be as they were written, and arrived damaged")


def test_older_copy_of_salts_stops_the_run_rather_than_make_a_person_another(url):
    """As a backup of the night before is, put back beside raw data of this night."""
    product = salted(url)
    deliver("ann")
    ingest(product, FIRST)
    copy = {digit: Store(url).read(table(url).key(digit)).body for digit in DIGITS}
    names = [f"p{i}" for i in range(40)]
    deliver("ann", *names)
    ingest(product, SECOND)
    before = salts(url)
    forget_ann(url)
    ingest(product, SECOND)
    assert table(url).missing(RawIndex.load(Path(Paths("tiny").raw)).salts) == [], "who was forgotten is counted"
    newer = {digit: Store(url).read(table(url).key(digit)).body for digit in DIGITS}
    for digit, body in copy.items():
        Store(url).update(table(url).key(digit), lambda _, body=body: body)
    deliver("ann", *names, "new")
    with pytest.raises(
        UserError, match=r"must have the salts of \d+ subjects, as when rows were stored last, and has \d"
    ):
        ingest(product, THIRD)
    assert salts(url).keys() < before.keys(), "nobody got another salt"
    assert table(url).missing(RawIndex.load(Path(Paths("tiny").raw)).salts) != []
    for digit, body in newer.items():
        Store(url).update(table(url).key(digit), lambda _, body=body: body)
    ingest(product, THIRD)
    assert before.items() - salts(url).items() == {(subject_id(product, "ann"), before[subject_id(product, "ann")])}


def test_wishes_that_cannot_be_met_are_told(url):
    for product, key, why, words in (
        (salted(url), "weight_kg=1", "a letter", r"KEY must be column=value with a salted column \(parcel_id, depot\)"),
        (salted(url), "parcel_id=Ann Smith", "Ann Smith asked", "REASON must not name who is forgotten"),
        (salted(url, pii={}), "ann", "a letter", "must declare a column salted, and declares none"),
    ):
        with pytest.raises(UserError, match=words):
            forget_subject(product, key, why, "Ann", FIRST, yes=True)


def test_every_label_is_tried():
    folders = (ROOT / "tasks" / "publication" / "salts", ROOT / "tasks" / "erasure")
    text = "\n".join(file.read_text() for folder in folders for file in folder.glob("*.py"))
    written = {line.split('"')[1] for line in text.splitlines() if 'failpoint("' in line}
    assert {each for each in written if each.startswith(("salts:", "forget:"))} == {*LABELS, *LABELS_OF_FORGETTING}
