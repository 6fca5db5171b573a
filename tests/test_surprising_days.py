"""Oracle: a night whose share of surprising rows is counted by hand, before a real S3 server."""

import uuid
from datetime import date

import pandas as pd
import pytest
from builders import a_product, a_repository, accept_days, declared, mistakes, night_inputs

from tasks.publication.contracts import Part
from tasks.publication.night import part_name, read_night, write_night
from tasks.publication.publishing import surprise_of
from tasks.publish import publish
from tasks.read import read_manifest
from tasks.rows.partitions import write_table
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, write_json
from tasks.runtime.paths import Paths

AS_OF, SCORED = date(2024, 2, 10), date(2024, 2, 11)
COLUMNS = {"depot": "category", "weight_kg": "number"}
CHANGES = {
    "columns": COLUMNS,
    "target": {"task": "reconstruct"},
    "gates": {},
    "expectations": [],
    "model__train__refit": False,
}


@pytest.fixture
def url(s3_here, tmp_path, monkeypatch):
    """A prefix of its own, seen from a repository of its own."""
    monkeypatch.chdir(tmp_path)
    a_repository(tmp_path)
    return f"s3://lamplighter/surprise-{uuid.uuid4().hex}"


def a_night(url, n_surprising, most=0.05, n_rows=100):
    """A product and its night, of whose rows so many are beyond the 99th percentile, in two parts."""
    product, paths = a_product(**CHANGES, drift={"max_surprising": most}, publish={"url": url}), Paths("tiny")
    write_json(paths.report("validation.json"), {"scored_day": {"rows_in": n_rows, "rows_quarantined": 0}})
    ranks = [99.5] * n_surprising + [99.0] * (n_rows - n_surprising)
    rows = pd.DataFrame({"parcel_id": [f"p{i}" for i in range(n_rows)], "surprise_percentile": ranks})
    parts = []
    for shard, part in enumerate((rows[: n_rows // 3], rows[n_rows // 3 :])):
        file = paths.predictions / part_name(shard)
        write_table(file, part.astype({"surprise_percentile": "float32"}))
        parts.append(Part(name=file.name, rows=len(part), bytes=file.stat().st_size, sha256=file_sha256(file)))
    write_night(product, AS_OF, night_inputs("m1", AS_OF, SCORED), parts, paths.predictions)
    return product


def surprise(product):
    folder = Paths("tiny").predictions
    return surprise_of(product, read_night(folder), folder)


def test_night_of_surprising_rows_is_not_published_until_a_person_accepts_it(url):
    product = a_night(url, n_surprising=30)
    for _ in range(2):  # a retry is as wise
        with pytest.raises(UserError) as caught:
            publish(product, AS_OF)
        message = str(caught.value)
        assert "99 of 100 training rows: 0.3, and 0 to 0.1154 may be" in message
        assert 'make accept PRODUCT=tiny DT=2024-02-11 REASON="' in message
        assert "held until a person answers" in message
    with pytest.raises(UserError):
        read_manifest(url, "tiny")
    accept_days(SCORED)
    assert "100 predictions in 2 parts published" in publish(product, AS_OF)
    assert read_manifest(url, "tiny").rows.published == 100


def test_night_within_the_limit_or_without_one_is_published(url):
    assert "published" in publish(a_night(url, n_surprising=11), AS_OF)
    assert "published" in publish(a_night(f"{url}-other", n_surprising=100, most=None), AS_OF)


def test_share_is_counted_over_all_parts_and_allows_for_chance_in_few_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = surprise(a_night("s3://lamplighter/x", 2, n_rows=10))
    assert few.figures[0].seen == 0.2
    assert not few.is_held
    assert surprise(a_night("s3://lamplighter/x", 200, n_rows=1000)).is_held
    assert not surprise(a_night("s3://lamplighter/x", 0, n_rows=0)).figures


def test_limit_needs_a_product_without_labels_and_a_share():
    found = mistakes(declared(drift={"max_surprising": 0.05}))
    assert any("drift.max_surprising must not be given for a binary target" in line for line in found)
    found = mistakes(declared(**{**CHANGES, "drift": {"max_surprising": 5}}))
    assert any("drift.max_surprising" in line and "got 5" in line for line in found)
