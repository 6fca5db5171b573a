"""Oracle: jsonschema, Hypothesis's own manifests, and the bytes of a manifest that was published before."""

import dataclasses
import json
from datetime import date

import jsonschema
import pytest
from builders import night_inputs
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.publication.contracts import (
    Manifest,
    ModelRef,
    NightFile,
    PublishedPart,
    Rows,
    SchemaField,
    Withdrawal,
    manifest_schema,
    schema_text,
)
from tasks.publication.manifests import decode_record, encode_checked
from tasks.publication.object_store import StoredObject
from tasks.runs.experiments import Run
from tasks.runtime.errors import UserError

TEXT = st.sampled_from(["", "a", 'ä"\\', "日本", "x" * 64, "\n\x1f"])
COUNT, NAME = st.integers(0, 10**12), st.none() | TEXT
PARTS = st.builds(PublishedPart, name=TEXT, rows=COUNT, bytes=COUNT, sha256=TEXT, key=TEXT)
MANIFESTS = st.builds(
    Manifest,
    format=st.just(1),
    product=TEXT,
    dt=st.dates(),
    run=TEXT,
    as_of=st.dates(),
    scored_day=st.dates(),
    rows=st.builds(Rows, rows_in=COUNT, published=COUNT, quarantined=COUNT),
    accepted=NAME,
    held=st.lists(st.dates(), max_size=3).map(tuple),
    schema=st.lists(st.builds(SchemaField, name=TEXT, type=TEXT), max_size=3).map(tuple),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    file=st.none() | st.builds(NightFile, key=TEXT, version=TEXT, rows=COUNT, bytes=COUNT, sha256=TEXT),
    model=st.builds(ModelRef, sha256=TEXT, version=NAME, commit=NAME, approval=NAME),
    inputs=st.builds(night_inputs, model=TEXT, as_of=st.dates(), scored_day=st.dates()),
    generation=COUNT,
    supersedes=NAME,
    experiment=NAME,
    experiment_commit=NAME,
    git_revision=TEXT,
    writer=TEXT,
    withdrawn=st.none() | st.builds(Withdrawal, person=TEXT, reason=TEXT),
)
# As publish of format 1 writes it: keys, their order, and every value.
PUBLISHED = """{
  "format": 1,
  "product": "tiny",
  "dt": "2024-02-10",
  "run": "0123456789abcdef",
  "as_of": "2024-02-10",
  "scored_day": "2024-02-11",
  "rows": {
    "in": 20,
    "published": 19,
    "quarantined": 1
  },
  "accepted": null,
  "held": [],
  "schema": [
    {
      "name": "parcel_id",
      "type": "large_string"
    }
  ],
  "parts": [
    {
      "name": "part-00000.parquet",
      "rows": 19,
      "bytes": 2345,
      "sha256": "aa",
      "key": "predictions/tiny/_parts/dt=2024-02-10/run=0123456789abcdef-000001/part-00000"
    }
  ],
  "file": {
    "key": "predictions/tiny/dt=2024-02-10/predictions.parquet",
    "version": "0123456789abcdef-000001",
    "rows": 19,
    "bytes": 2345,
    "sha256": "ab"
  },
  "model": {
    "sha256": "bb",
    "version": "v1.0.0",
    "commit": "cc",
    "approval": "Ada, 2024-02-10 03:00:00 +0000: approved by the gates (tag tiny#prod#1)"
  },
  "inputs": {
    "product": "tiny",
    "as_of": "2024-02-10",
    "scored_day": "2024-02-11",
    "shards": 1,
    "threshold": 0.5,
    "rows_sha256": "dd",
    "model_sha256": "bb",
    "engine": {
      "engine": "onnxruntime",
      "version": "1.31.1",
      "provider": "CPUExecutionProvider",
      "precision": "fp32",
      "processor": "a processor"
    },
    "code_sha256": "ee",
    "environment_sha256": "ff"
  },
  "generation": 1,
  "supersedes": null,
  "experiment": "tiny-2024-02-10-predict-00000000",
  "experiment_commit": "gg",
  "git_revision": "hh",
  "writer": "ii",
  "withdrawn": null
}"""


SCHEMA = jsonschema.Draft202012Validator(manifest_schema())


def stored(content):
    return StoredObject("s3://lamplighter/x", encode_checked(content), "etag")


@given(MANIFESTS)
@settings(max_examples=25, deadline=None)
def test_manifest_comes_back_as_it_was_written_and_fits_its_schema(manifest):
    sealed = stored(manifest.to_json())
    assert decode_record(sealed, Manifest) == manifest
    SCHEMA.validate(json.loads(sealed.body))


def test_manifest_of_before_is_read_and_written_again_with_the_same_bytes():
    manifest = Manifest.from_json(PUBLISHED)
    assert json.dumps(manifest.to_json(), indent=2) == PUBLISHED
    assert (manifest.dt, manifest.rows.rows_in, manifest.parts[0].bytes) == (date(2024, 2, 10), 20, 2345)


def test_manifest_that_is_older_is_still_read():
    content = json.loads(PUBLISHED)
    del content["model"]["approval"], content["file"], content["withdrawn"], content["held"]
    older = Manifest.from_json(content)
    assert (older.model.approval, older.file, older.withdrawn) == (None, None, None)
    assert older.parts == Manifest.from_json(PUBLISHED).parts


def test_manifest_of_before_there_were_withdrawals_is_still_read():
    content = json.loads(PUBLISHED)
    del content["withdrawn"], content["held"]
    assert decode_record(stored(content), Manifest) == Manifest.from_json(PUBLISHED)


def test_keys_of_a_newer_manifest_are_ignored_by_a_reader():
    content = json.loads(PUBLISHED)
    content["new"], content["model"]["new"] = 1, {"x": 2}
    sealed = stored(content)
    assert decode_record(sealed, Manifest) == Manifest.from_json(PUBLISHED)
    jsonschema.validate(json.loads(sealed.body), manifest_schema())


@pytest.mark.parametrize(
    "change", [{"rows": {"in": "20", "published": 19, "quarantined": 1}}, {"dt": "yesterday"}, {"parts": None}]
)
def test_manifest_of_another_form_is_refused_by_reader_and_schema(change):
    content = json.loads(PUBLISHED) | change
    with pytest.raises(UserError, match=r"must be a manifest of format 1, and is not; .* update this one"):
        decode_record(stored(content), Manifest)
    checker = jsonschema.Draft202012Validator(manifest_schema(), format_checker=SCHEMA.FORMAT_CHECKER)
    assert not checker.is_valid(json.loads(stored(content).body))


def test_published_schema_is_current_and_describes_every_key():
    written = (ROOT / "docs" / "manifest.schema.json").read_text("utf-8")
    assert written == schema_text(), "run python -m tasks.commands manifest-schema"
    schema = manifest_schema()
    for properties in (schema["properties"], *(each["properties"] for each in schema["$defs"].values())):
        assert [name for name, about in properties.items() if "description" not in about and "$ref" not in about] == []


def test_facts_of_a_run_pass_through_a_file_unchanged():
    run = Run(name="tiny-2024-02-10-predict-00000000", product="tiny", as_of="2024-02-10", revision="ab", shards=3)
    run = dataclasses.replace(run, generation=7, approver="Ada", commit="cd")
    assert Run.from_json(json.dumps(run.to_json())) == run
    with pytest.raises(ValueError, match="shards"):
        Run.from_json({**run.to_json(), "shards": "3"})
