"""Oracle: an independent validator of JSON Schema, and the check of params.yaml itself."""

import jsonschema
import pytest
import yaml
from conftest import ROOT, TINY
from test_effective import SHORT
from test_params import declared

from tasks import params
from tasks.params.documents import json_schema, reference
from tasks.params.messages import fields_of
from tasks.runtime.errors import UserError

VALIDATOR = jsonschema.Draft202012Validator(json_schema.json_schema())


@pytest.mark.parametrize("module", [json_schema, reference], ids=["schema", "reference"])
def test_written_file_is_current(module):
    file = json_schema.SCHEMA_FILE if module is json_schema else reference.REFERENCE_FILE
    assert (ROOT / file).read_text("utf-8") == module.text(), f"{file} is old; run make schema"


def test_first_line_of_params_names_the_schema():
    first = (ROOT / "params.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={json_schema.SCHEMA_FILE}"


def test_schema_is_one_by_its_own_rules():
    jsonschema.Draft202012Validator.check_schema(json_schema.json_schema())


@pytest.mark.parametrize("text", [(ROOT / "params.yaml").read_text(), TINY, SHORT], ids=["shipped", "tiny", "short"])
def test_schema_accepts_what_the_check_accepts(text):
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"sorce": {}},
        {"source": {"kind": "csvv", "url": "a.csv"}},
        {"source": {"kind": "csv", "url": "a.csv", "query": "SELECT 1"}},
        {"columns__depot": "string"},
        {"target__task": "classification"},
        {"target": {"name": "late"}},
        {"predict__shards": 65},
        {"split": {"by": "hash", "test_days": 3}},
        {"model__network": {"layers": 3}},
        {"model__train": {"learning_rate": "0.1"}},
        {"gates__metric": "acu"},
        {"pii": {"depot": "encrypt"}},
        {"key": "parcel_id"},
    ],
    ids=str,
)
def test_schema_refuses_what_the_check_refuses(changes):
    content = declared(**changes)
    with pytest.raises(UserError):
        params.parse(content)
    assert list(VALIDATOR.iter_errors(content))


def test_reference_tells_of_every_key():
    text = (ROOT / reference.REFERENCE_FILE).read_text("utf-8")
    for key in [*fields_of(params.Product), *fields_of(params.Model), *fields_of(params.SqlSource)]:
        assert f"| `{key}` |" in text
