"""Oracle: hand-made mistakes, each with the text that must name its rule, value, place and remedy."""

import copy
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from datetime import date

import pytest
import yaml
from builders import TINY, declared, mistakes
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from model.features.kinds import KINDS
from model.settings import PRESETS
from tasks import params
from tasks.params import yaml_file
from tasks.params.__main__ import main
from tasks.runs.dvc import read_yaml
from tasks.runtime.errors import UserError

HEAVY = ("torch", "pandas", "numpy", "great_expectations", "onnxruntime", "sklearn", "airflow")


def only_mistake(**changes):
    lines = mistakes(declared(**changes))
    assert len(lines) == 1, lines
    return lines[0].removeprefix("products.tiny.")


def expectation(type_, severity="warning", **kwargs):
    return [{"type": type_, "severity": severity, "kwargs": kwargs}]


def test_shipped_file_is_right():
    declared = params.load(ROOT / "params.yaml")
    names = ["flight-delays", "news-topics", "headlines", "digits", "credit-risk", "customer-value"]
    names += ["unusual-flights", "next-destination", "late-flights-ahead", "headline-drafts"]
    names += ["headline-drafts-smollm2", "headline-gaps", "parcels"]
    assert list(declared.products) == names
    assert declared.as_of == date(2013, 6, 30)


def test_tiny_file_is_read_as_it_is_written():
    tiny = params.parse(yaml.safe_load(TINY)).product("tiny")
    assert tiny.key == ("parcel_id",)
    assert tiny.stored_columns == ["parcel_id", "day", "depot", "weight_kg", "handed_in"]
    assert tiny.scored_day(date(2024, 2, 28)) == date(2024, 2, 29)
    assert tiny.model.network_settings().d_model == 16
    with pytest.raises(FrozenInstanceError):
        tiny.time = "other"


def test_defaults_of_the_preset_stand_where_network_says_nothing():
    changed = params.parse(declared(model__network={"d_model": 32})).product("tiny").model.network_settings()
    preset = PRESETS["small"]
    assert (changed.d_model, changed.n_layers, changed.max_tokens) == (32, preset.n_layers, preset.max_tokens)


def test_every_mistake_of_a_file_is_told_at_once(tmp_path):
    content = declared(
        source={"kind": "csv", "url": "a.csv", "qery": "SELECT 1"},
        columns={"depot": "categry", "late": "number"},
        split__test_days=0,
        predict={"horizon_days": -1, "shards": 65},
        schedule__retrain="every sunday",
        model__network={"d_model": 100, "n_heads": 8, "layers": 3},
        model__init="magic",
        gates__metric="rmse",
        publish__url="/tmp/here",
        expectations=expectation("expect_column_value_to_be_between", column="depot"),
    )
    content["products"]["second"] = {**copy.deepcopy(content["products"]["tiny"]), "key": "parcel_id"}
    content["as-of"], content["as_of"] = "2024-01-01", "yesterday"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "tasks.params"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert os.times().children_user - before.children_user < 2, "seconds of work, however busy the machine is"
    assert done.returncode == 65
    assert "Traceback" not in done.stderr
    for place in (
        "as-of",
        "as_of",
        *(
            f"products.{name}.{rest}"
            for name in ("tiny", "second")
            for rest in (
                "source.qery",
                "columns.depot",
                "target.name",
                "split.test_days",
                "predict.horizon_days",
                "predict.shards",
                "schedule.retrain",
                "model.network.d_model",
                "model.network.layers",
                "model.init",
                "gates.metric",
                "publish.url",
                "expectations.0.type",
            )
        ),
        "products.second.key",
    ):
        told = [line for line in done.stderr.splitlines() if line.startswith(f"params.yaml: {place} ")]
        assert len(told) == 1, (place, done.stderr)
        assert re.search(r" must .*[;,] .+", told[0]), told
    assert len(done.stderr.splitlines()) == 29


def test_check_of_the_file_imports_nothing_heavy():
    check = "from tasks.params.__main__ import main; assert main([]) == 0"
    code = f"import sys; {check}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sorce": {}}, "sorce must be a key that is known here, and is not; did you mean source?"),
        ({"target__tusk": "binary"}, "target.tusk must be a key that is known here, and is not; did you mean task?"),
        (
            {"model__train": {"learning_rat": 0.1}},
            "model.train.learning_rat must be a key that is known here, and is not; did you mean learning_rate?",
        ),
        (
            {"model__network": {"d_model": 100, "n_heads": 8}},
            "model.network.d_model must be a multiple of n_heads, got d_model=100, n_heads=8; use 96 or 104",
        ),
        (
            {"columns__weight_kg": "numer"},
            "columns.weight_kg must be one of category, number, context, time, image, events, text, got 'numer'; "
            "use number",
        ),
        (
            {"columns__late": "number"},
            "target.name must not be an input, the key or the time, got 'late'; "
            "delete it from columns: the model would be told the answer",
        ),
        (
            {"columns": {"weight_kg": "context"}, "expectations": []},
            "columns must name at least one that is no context, got weight_kg; add what tells the rows of one "
            "context apart",
        ),
        (
            {"model__engine": "onnxruntime-fp16", "target__task": "regression", "gates__metric": "rmse"},
            "model.engine must not be onnxruntime-fp16 for a regression, whose numbers it cannot hold; use measured",
        ),
        ({"columns": {}, "expectations": []}, "columns must name at least one input, got {}; add one"),
        ({"key": []}, "key must name at least one column, got []; add one, or leave key out"),
        ({"key": "parcel_id"}, "key must be a list, got 'parcel_id'; write a list"),
        ({"predict__shards": 65}, "predict.shards must be at most 64, got 65; use 64 or less"),
        ({"predict__shards": 0}, "predict.shards must be at least 1, got 0; use 1 or more"),
        ({"predict__shards": True}, "predict.shards must be a whole number, got True; write a whole number"),
        ({"split__folds": 2}, "split.folds must be 0 or 3 to 20, got 2; use for example 5"),
        ({"split__start": 0.2}, "split.start must not be given for by: time, got 0.2; delete it"),
        ({"predict__threshold": 1.0}, "predict.threshold must lie between 0 and 1, got 1.0; use for example 0.5"),
        (
            {"target__task": "multiclass", "gates__metric": "macro_f1", "predict__threshold": 0.3},
            "predict.threshold must not be given for a multiclass target, got 0.3; delete it",
        ),
        (
            {"model__train": {"class_weights": "balanced"}},
            "model.train.calibrate must be false with class_weights: balanced for a binary target, since probabilities "
            "fitted to the rows as they come undo the weights, got true; set it to false, or leave class_weights out "
            "and set predict.threshold",
        ),
        (
            {"model__network": {"wide_tokens": 512}},
            "model.network.wide_tokens must be 0 without a text column, got 512; delete it",
        ),
        (
            {"model__train": {"mirror_images": True}},
            "model.train.mirror_images must be false without an image column, got true; delete it",
        ),
        (
            {"model__network": {"max_windows": 4}},
            "model.network.max_windows must be 1 without a text column, got 4; delete it",
        ),
        (
            {
                "columns": {f"text_{i}": "text" for i in range(8)},
                "expectations": [],
                "model__network": {"max_tokens": 8},
            },
            "model.network.max_tokens must be above the number of text columns, got 8 for 8; use 128 or more",
        ),
        (
            {"schedule__predict": "61 * * * *"},
            "schedule.predict must be a cron expression or null, got '61 * * * *'; use for example \"0 3 * * 0\"",
        ),
        (
            {"source": {"kind": "csv", "url": "a.csv", "ends": "2013-06-31"}},
            "source.ends must be a date written as YYYY-MM-DD, got '2013-06-31'; use for example \"2013-12-31\"",
        ),
        (
            {"source": {"kind": "csv", "url": "a.csv", "ends": 20131231}},
            'source.ends must be a date written as YYYY-MM-DD, got 20131231; use for example "2013-12-31"',
        ),
        (
            {"time_zone": "Asia/Tokio"},
            "time_zone must be the name of an IANA time zone, got 'Asia/Tokio'; use Asia/Tokyo",
        ),
        (
            {"time_zone": "new york"},
            "time_zone must be the name of an IANA time zone, got 'new york'; use America/New_York",
        ),
        (
            {"time_zone": "PST"},
            "time_zone must be the name of an IANA time zone, got 'PST'; use America/Los_Angeles",
        ),
        (
            {"time_zone": "UTC+9"},
            "time_zone must be the name of an IANA time zone, got 'UTC+9'; "
            "use the name of a place with that clock, for example Europe/Berlin",
        ),
        (
            {"time_zone": "localtime"},
            "time_zone must be the name of an IANA time zone, got 'localtime'; use for example Europe/Berlin",
        ),
        (
            {"time_zone": 9},
            "time_zone must be text, got 9; write for example time_zone: Europe/Berlin",
        ),
        ({"gates__limit": float("nan")}, "gates.limit must be a finite number, got nan; use for example 0.5"),
        (
            {"gates__metric": "rmse"},
            "gates.metric must be one of auc, average_precision, accuracy, balanced_accuracy, precision, recall, f1, "
            "expected_cost, log_loss, brier, ece, got 'rmse'; use auc",
        ),
        (
            {"split__group": "depo"},
            "split.group must be a column or part of the key, got 'depo'; "
            "use one of parcel_id, day, depot, weight_kg, handed_in",
        ),
        (
            {"split": {"by": "hash", "test_fraction": 0.9, "val_fraction": 0.1}},
            "split.test_fraction must lie between 0 and 0.5, got 0.9; use for example 0.1",
        ),
        (
            {"source": {"kind": "csv"}},
            "source.url must be given for kind csv, or url_env in its place; add one of the two",
        ),
        (
            {"source": {"kind": "python", "callable": "no.such.module:rows"}},
            "source.callable must name an importable module and a function, got 'no.such.module:rows'; "
            "use package.module:function",
        ),
        (
            {"publish__url": "http://x/y"},
            "publish.url must be s3://bucket/prefix, got 'http://x/y'; use for example s3://lamplighter/predictions",
        ),
        ({"gates__approval": "humans"}, "gates.approval must be one of none, human, got 'humans'; use human"),
        ({"publish__keep_days": 0}, "publish.keep_days must be at least 1, got 0; use 1 or more"),
    ],
)
def test_mistake_names_rule_value_place_and_remedy(changes, told):
    assert only_mistake(**changes) == told


def test_unknown_expectation_is_refused_with_the_nearest_one():
    told = only_mistake(expectations=expectation("expect_column_values_to_not_be_nul", column="depot"))
    assert told == (
        "expectations.0.type must be an expectation of Great Expectations, got "
        "'expect_column_values_to_not_be_nul'; use expect_column_values_to_not_be_null"
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {"column": "weight_kg", "min": 0},
        {"min_value": 0, "max_value": 1},
        {"column": "weight_kg", "mostly": 2},
        {"column": "weight_kg", "min_value": [0]},
    ],
)
def test_wrong_arguments_of_an_expectation_are_refused(kwargs):
    lines = mistakes(declared(expectations=expectation("expect_column_values_to_be_between", **kwargs)))
    assert all("expectations.0.kwargs must fit expect_column_values_to_be_between, got {" in line for line in lines)


@pytest.mark.parametrize("mostly", [0.29, 0.995])
def test_any_share_may_be_asked_of_a_column(mostly):
    kwargs = {"column": "depot", "mostly": mostly}
    product = params.parse(declared(expectations=expectation("expect_column_values_to_not_be_null", **kwargs)))
    assert product.product("tiny").expectations[0].kwargs == kwargs


@pytest.mark.parametrize(
    ("kind", "argument", "kwargs"),
    [
        ("expect_column_values_to_not_be_null", "column", {"column": "colour"}),
        ("expect_column_pair_values_to_be_equal", "column_B", {"column_A": "depot", "column_B": "colour"}),
        ("expect_compound_columns_to_be_unique", "column_list", {"column_list": ["depot", "colour"]}),
    ],
)
def test_expectation_on_an_undeclared_column_is_refused(kind, argument, kwargs):
    told = only_mistake(expectations=expectation(kind, **kwargs))
    assert told.startswith(f"expectations.0.kwargs.{argument} must be a declared column, got 'colour'; use one of ")


def test_expectation_may_speak_of_key_time_and_target():
    for column in ("parcel_id", "day", "late"):
        params.parse(declared(expectations=expectation("expect_column_values_to_not_be_null", column=column)))


def test_columns_that_the_stages_add_themselves_are_refused():
    assert "'dt'" in only_mistake(time="dt")
    assert "'reasons'" in only_mistake(columns={"reasons": "text", "depot": "category", "weight_kg": "number"})
    assert "predictions' own columns" in only_mistake(key=["prediction"])
    assert "got 'parcel_id' twice" in only_mistake(key=["parcel_id", "parcel_id"])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:hunter2@db/warehouse",
        "postgresql://reader:hun/ter2@db/warehouse",
        "postgresql://db/warehouse?user=reader&password=hunter2",
    ],
)
def test_sql_url_with_a_password_is_refused_without_repeating_it(url):
    told = only_mistake(source={"kind": "sql", "url": url, "query": "SELECT 1"})
    assert told.startswith("source.url must not hold a password; put the URL into an environment variable")
    assert "ter2" not in told


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "sql", "url": "postgresql://reader@db:5432/warehouse", "query": "SELECT 1"},
        {"kind": "sql", "url_env": "WAREHOUSE_URL", "query": "SELECT 1"},
        {"kind": "csv", "url": "http://127.0.0.1:8000/by@day/rows.csv"},
    ],
)
def test_url_without_a_password_is_right(source):
    params.parse(declared(source=source))


def test_bare_date_is_refused_with_the_quoted_one(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(TINY.replace('"2024-02-10"', "2024-02-10"))
    with pytest.raises(UserError, match='as_of must be quoted, got a bare 2024-02-10; use "2024-02-10"'):
        params.load(file)
    file.write_text(TINY.replace('"2024-02-10"', "2024-02-30"))
    with pytest.raises(UserError, match="must be YAML; day is out of range"):
        params.load(file)


@pytest.mark.parametrize("value", [None, 20240210, "2024-2-10", "2024-02-30", "2024-02-10T00:00:00"])
def test_as_of_must_be_a_date_that_the_calendar_has(value):
    assert mistakes({**declared(), "as_of": value}) == [
        f'as_of must be a date written as YYYY-MM-DD, got {value!r}; use for example "2013-06-30"'
    ]


def test_key_given_twice_is_refused_with_its_place(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(TINY + "    time: other\n")
    line = TINY.count("\n") + 1
    with pytest.raises(UserError, match=f"the key 'time' is given twice, the second time on line {line}"):
        params.load(file)


def test_blocks_shared_by_a_yaml_anchor_are_read(tmp_path):
    file = tmp_path / "params.yaml"
    text = TINY.replace("gates: {", "gates: &gates {", 1)
    second = TINY[TINY.index("  tiny:") :].replace("  tiny:", "  second:")
    file.write_text(text + re.sub(r"gates: \{[^}]*\}", "gates: {<<: *gates, limit: 0.9}", second))
    read = params.load(file)
    assert (read.product("second").gates.limit, read.product("second").gates.metric) == (0.9, "auc")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("products: [", "must be YAML"),
        ("products: all: of them", r"must be YAML; mapping values are not allowed here .* products: all: of them \^"),
        ("", "products must hold at least one product"),
        ("- a\n", "products must hold"),
        ('as_of: "2024-01-01"\nproducts: {tiny: 3}', "products.tiny must be a mapping, got 3"),
        ('as_of: "2024-01-01"\nproducts: {Tiny_One: {}}', "a name must be 2 to 64 lower-case letters"),
    ],
)
def test_file_that_holds_something_else_is_refused(tmp_path, text, match):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=match):
        params.load(tmp_path / "params.yaml")


TEXT = st.text().filter(lambda text: not re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", text))
"""A text that is no number in YAML 1.2, which PyYAML writes without quotes."""
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT


@settings(max_examples=40)
@given(st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8))
def test_what_a_file_holds_is_what_was_written_into_it(content):
    assert yaml_file.raw(yaml.safe_dump(content)) == content
    assert read_yaml(yaml.safe_dump(content)) == content


def test_absent_file_is_told_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/params.yaml.*run from the repository's root"):
        params.load(tmp_path / "params.yaml")


def test_unknown_product_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"no product is called 'tinny'; did you mean tiny\?"):
        params.parse(declared()).product("tinny")
    with pytest.raises(UserError, match="no product is called 'xyz'; use one of tiny"):
        params.parse(declared()).product("xyz")


def test_keys_that_are_missing_are_told_at_once_each_with_an_example():
    content = {"as_of": "2024-01-01", "products": {"tiny": {}}}
    assert mistakes(content) == [
        "products.tiny.source must be given, and is missing; add it, for example source: {kind: csv, url: data.csv}",
        "products.tiny.columns must be given, and is missing; add it, for example columns: {weight_kg: number, "
        "depot: category}",
        "products.tiny.target must be given, and is missing; add it, for example target: {name: late, task: binary}",
    ]
    example = yaml.safe_load("\n".join(line.partition("for example ")[2] for line in mistakes(content)))
    params.parse({"as_of": "2024-01-01", "products": {"tiny": example}})


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"split": {"by": "random"}}, "split.by must be one of time, hash, got 'random'; use hash"),
        (
            {"target__task": "classification"},
            "target.task must be one of binary, generate, multiclass, multilabel, next_item, reconstruct, regression, "
            "span, got 'classification'; use binary for two classes, multiclass for more",
        ),
        *(
            (
                {"columns__weight_kg": written},
                f"columns.weight_kg must be one of {', '.join(KINDS)}, got {written!r}; use {meant}",
            )
            for written, meant in (
                ("string", "text for sentences, category for one of a few values"),
                ("numeric", "number"),
                ("datetime", "time"),
                ("boolean", "category"),
            )
        ),
        (
            {"source": {"kind": "postgres", "url": "x"}},
            "source.kind must be one of csv, parquet, jsonl, excel, sql, python, got 'postgres'; use sql",
        ),
        (
            {"source": {"kind": "csv", "url": "x", "query": "SELECT 1"}},
            "source.query must not be given for kind: csv, got 'SELECT 1'; delete it",
        ),
        (
            {"columns": {"a b": "numeric"}, "expectations": []},
            f"columns.\"a b\" must be one of {', '.join(KINDS)}, got 'numeric'; use number",
        ),
        (
            {"source": "postgresql://reader:hunter2@db/warehouse"},
            "source must be a mapping, got a URL with a password; write for example source: {kind: csv, url: data.csv}",
        ),
    ],
)
def test_remedy_fits_what_was_meant(changes, remedy):
    assert mistakes(declared(**changes))[0] == f"products.tiny.{remedy}"


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "+1e-3", "1.0e-3", "0.001"])
def test_number_in_any_notation_is_the_number_that_it_is(written):
    text = TINY.replace("learning_rate: 0.003", f"learning_rate: {written}")
    assert params.loads(text).product("tiny").model.train.learning_rate == 0.001


def test_bare_date_anywhere_is_refused_with_the_quoted_one():
    text = TINY.replace("{column: weight_kg, min_value: 0}", "{column: weight_kg, min_value: 2024-01-01}")
    place = r"products.tiny.expectations.0.kwargs.min_value must be quoted, got a bare 2024-01-01; use \"2024-01-01\""
    with pytest.raises(UserError, match=place):
        params.loads(text)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("package:no_such_package/model", "must name an installed package, and 'no_such_package' is not"),
        ("package:yaml/model", "must name a folder that exists, and '.*model' does not"),
        ("package:yaml", "must name a folder with config.json, model.safetensors, tokenizer.json, and '.*' lacks"),
        ("dir:here", "must name a folder that exists, and 'here' does not"),
    ],
)
def test_weights_that_are_not_there_are_found_by_the_check(tmp_path, monkeypatch, capsys, init, message):
    monkeypatch.chdir(tmp_path)
    content = declared(model__init=init)
    params.parse(content)  # a scheduler needs no weights
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    assert main([]) == 65
    assert re.match(f"params.yaml: products.tiny.model.init {message}", capsys.readouterr().err)


def test_former_name_of_drift_is_read_with_a_note(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = TINY.replace("    drift: {}", "    day: {max_shift: 0.5}")
    assert params.loads(text).product("tiny").drift.max_shift == 0.5
    (tmp_path / "params.yaml").write_text(text)
    assert main([]) == 0
    note = "params.yaml: products.tiny.day is called drift now, and is read for one more release; rename it\n"
    assert capsys.readouterr().err == note


SHORTEST = {
    "source": {"kind": "csv", "url": "parcels.csv"},
    "columns": {"weight_kg": "number"},
    "target": {"name": "late", "task": "binary"},
}


@pytest.mark.parametrize(
    ("task", "metric", "limit"), [("binary", "auc", 0.5), ("multiclass", "macro_f1", 0.0), ("regression", "r2", 0.0)]
)
def test_three_keys_declare_a_product(task, metric, limit):
    entry = {**SHORTEST, "target": {"name": "late", "task": task}}
    product = params.parse({"as_of": "2024-01-01", "products": {"late-parcels": entry}}).product("late-parcels")
    assert (product.gates.metric, product.gates.limit, product.split.by) == (metric, limit, "hash")
    assert (product.description, product.schedule.predict) == ("Late parcels", None)
    assert product.time_zone == "UTC"


def test_metric_without_a_scale_that_is_known_needs_a_limit():
    changes = {"target__task": "regression", "gates": {"metric": "rmse"}}
    assert only_mistake(**changes) == "gates.limit must be given, and is missing; add it, for example limit: 0.5"


def test_product_without_key_and_time_has_columns_that_are_added():
    product = params.parse({"as_of": "2024-01-01", "products": {"tiny": SHORTEST}}).product("tiny")
    assert (product.key, product.time, product.has_key, product.has_time) == (("row_id",), "arrived", False, False)
    assert product.stored_columns == ["row_id", "arrived", "weight_kg"]
    with_both = params.parse(declared()).product("tiny")
    assert (with_both.has_key, with_both.has_time, replace(with_both, name="x").key) == (True, True, ("parcel_id",))


def test_product_may_declare_columns_of_these_names_itself():
    entry = {**SHORTEST, "key": ["row_id"], "time": "arrived"}
    product = params.parse({"as_of": "2024-01-01", "products": {"tiny": entry}}).product("tiny")
    assert (product.has_key, product.has_time) == (True, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"row_id": "number"}}, "columns must not be a name that the stages add themselves, got 'row_id'"),
        ({"columns": {"arrived": "time"}}, "columns must not be a name that the stages add themselves, got 'arrived'"),
        ({"split": {"by": "time"}}, "split.by must be hash for a product without time, got time; use hash"),
        ({"predict": {"horizon_days": 1}}, "predict.horizon_days must be 0 for a product without time, got 1"),
    ],
)
def test_what_needs_a_key_or_a_time_is_refused_without_one(changes, message):
    (line,) = mistakes({"as_of": "2024-01-01", "products": {"tiny": {**SHORTEST, **changes}}})
    assert line.startswith(f"products.tiny.{message}")


def places_of(content, place=()):
    """Every place in nested mappings and lists, the whole left out."""
    if place:
        yield place
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in children:
        yield from places_of(value, (*place, key))


@pytest.mark.parametrize(
    "junk",
    [None, 3, "x", [], {"a": 1}, [[{}]], float("inf"), 10**400, date(2024, 1, 1), {"kind": ["csv"]}],
    ids=lambda junk: str(junk)[:10],
)
def test_junk_in_any_place_is_reported_in_lines_and_never_as_a_traceback(junk):
    for *path, last in places_of(declared()):
        content = declared()
        inner = content
        for step in path:
            inner = inner[step]
        inner[last] = junk
        message = ""
        try:
            params.parse(content)
        except UserError as error:
            message = str(error)
        assert all(line.startswith("params.yaml: ") for line in message.splitlines())


def test_form_of_a_column_is_kept_with_its_source():
    revenue = {"kind": "number", "from": "Umsatz (€)", "decimal": ",", "missing": ["-"]}
    target = {"name": "late", "task": "binary", "from": "Zu spät", "missing": ["?"]}
    columns = {"depot": "category", "revenue": revenue, "handed_in": {"kind": "time", "time_format": "ms"}}
    product = params.parse(declared(columns=columns, target=target, expectations=[])).product("tiny")
    assert product.columns == {"depot": "category", "revenue": "number", "handed_in": "time"}
    assert product.source.names == {"revenue": "Umsatz (€)", "late": "Zu spät"}
    forms = {name: product.source.form_of(name) for name in ("revenue", "handed_in", "late", "depot")}
    assert [(form.missing, form.decimal, form.time_format) for form in forms.values()] == [
        (("-",), ",", None),
        (None, None, "ms"),
        (("?",), None, None),
        (None, None, None),
    ]
    labels = {"kind": "csv", "url": "labels.csv", "decimal": ","}
    own = params.parse(declared(target={**target, "source": labels})).product("tiny")
    assert own.source.names == {}
    assert own.target.source.names == {"late": "Zu spät"}
    assert own.target.source.form_of("late").missing == ("?",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"depot": {"kind": "category", "mising": ["-"]}}, "expectations": []}, "did you mean missing?"),
        (
            {"source__forms": {"wieght_kg": {"decimal": ","}}},
            "source.forms must name declared columns, got 'wieght_kg'",
        ),
        (
            {"target__positive": True},
            """positive must be one value of the target, as text, got True; write it in quotes""",
        ),
        ({"target__negative": "no"}, "target.positive must be given beside target.negative, got 'no' alone"),
        (
            {"target": {"name": "late", "task": "binary", "positive": "a", "negative": "A"}},
            "target.negative must be an",
        ),
        ({"target__empty": "none"}, "target.empty must not be given for a binary target, got 'none'; delete it"),
        (
            {"target": {"name": "late", "task": "multiclass", "positive": "a"}, "gates": {}},
            "must not be given for a mul",
        ),
        ({"target__source": {"kind": "csv"}}, "target.source.url must be given for kind csv, or url_env in its place"),
        (
            {"target__source": {"kind": "csv", "url": "a.csv", "sheet": 1}},
            "target.source.sheet must not be given for ki",
        ),
        ({"source__file_date": "%d.%m"}, "source.file_date must name year, month and day of a file's name once each"),
        ({"source__comment": ""}, "source.comment must be the characters that such a line begins with, got ''"),
        ({"source": {"kind": "xlsx", "url": "a.xlsx"}}, "got 'xlsx'; use excel"),
    ],
    ids=str,
)
def test_mistake_about_how_files_and_labels_are_written_is_told(changes, message):
    assert message in only_mistake(**changes)
