"""Oracle: params.yaml read back by the project's own reader, and its lines compared one by one."""

import re

import pytest
from builders import TINY
from conftest import ROOT

from tasks import params
from tasks.params.edit import edited
from tasks.runs import experiments, workspace
from tasks.runtime.errors import UserError

SHIPPED = (ROOT / "params.yaml").read_text()
RATE = ("products", "tiny", "model", "train", "learning_rate")


@pytest.mark.parametrize(
    "line",
    ['as_of: "2024-02-10"', '"as_of": "2024-02-10"   # the clock', "as_of :   '2024-02-10'", 'as_of:\n  "2024-02-10"'],
)
@pytest.mark.parametrize("shards", [3, 5])
def test_run_has_its_date_and_shards_however_the_file_is_written(tmp_path, line, shards):
    file = tmp_path / "params.yaml"
    file.write_text(TINY.replace('as_of: "2024-02-10"', line))
    run = experiments.Run(name="x", product="tiny", as_of="2024-02-29", revision="x", shards=shards)
    workspace.declare_run(run, file)
    declared = params.load(file)
    assert (declared.as_of.isoformat(), declared.product("tiny").predict.shards) == ("2024-02-29", shards)


@pytest.mark.parametrize("value", [2e-05, 1.5e-07, 0.003, 3.0, 4, "no", "2013-06-30", "a: b # c", True])
def test_value_is_read_back_as_it_was_given(value):
    train = params.raw(edited(TINY, {RATE: value}))["products"]["tiny"]["model"]["train"]
    assert (train["learning_rate"], type(train["learning_rate"])) == (value, type(value))


def test_lines_that_a_change_leaves_alone_stay_as_they_are():
    changed = edited(SHIPPED, {("as_of",): "2013-07-01", ("products", "flight-delays", "predict", "shards"): 2})
    pairs = list(zip(SHIPPED.splitlines(), changed.splitlines(), strict=True))
    assert [new.split("#")[0].strip() for old, new in pairs if new != old] == [
        'as_of: "2013-07-01"',
        "predict: {horizon_days: 1, shards: 2}",
    ]


def test_value_is_changed_in_a_file_that_says_yes():
    """YAML 1.1, which params reads, takes it for true; the editor's 1.2 takes it for text."""
    text = TINY.replace("split: {by", "split: {folds: 0, by").replace("epochs: 8,", "epochs: 8, calibrate: yes,")
    assert params.loads(text).product("tiny").model.train.calibrate
    changed = edited(text, {("products", "tiny", "description"): "no"})
    product = params.loads(changed).product("tiny")
    assert (product.description, product.model.train.calibrate) == ("no", True)


def test_change_that_would_reach_another_entry_is_refused():
    text = TINY.replace("pretrain: {epochs: 1", "pretrain: &both {epochs: 1")
    text = re.sub(r" train: \{.*\}", " train: *both", text)
    with pytest.raises(UserError, match=r"products.tiny.model.train.learning_rate must be written where nothing else"):
        edited(text, {RATE: 0.1})


def test_key_after_a_last_line_without_an_end_gets_its_own_line():
    assert edited('as_of: "2024-01-01"\nnote: a', {("more",): 2}) == 'as_of: "2024-01-01"\nnote: a\nmore: 2\n'
