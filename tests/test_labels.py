"""Oracle: what each label says, written down beside it by a person."""

import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product

from model.heads import head_of
from tasks.rows.casting import cast_target, has_label
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch as fetch_pieces
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")


def labels(*cells, kind="csv", **target):
    """The labels as fetched of rows that hold these, with what their task makes of them; None where there is none."""
    target = {"name": "y", "task": "binary", **target}
    rows = [{"id": str(i), "day": "2024-01-01", "depot": "A", "y": cell} for i, cell in enumerate(cells)]
    if kind == "csv":
        Path("rows.csv").write_text("".join(f"{','.join(row)}\n" for row in [rows[0], *(row.values() for row in rows)]))
    else:
        Path("rows.csv").write_text("".join(json.dumps(row) + "\n" for row in rows))
    product = a_product(
        source={"kind": kind, "url": "rows.csv", "missing": target.pop("missing", None)},
        key=["id"],
        columns={"depot": "category"},
        target=target,
        expectations=[],
        gates={},
    )
    delivered = fetch(product, None, date(2024, 1, 2))["y"]
    known = has_label(delivered)
    cast = cast_target(delivered.where(known, None), product.target)[0].astype(object)
    return cast.where(cast.notna(), None).tolist()


@pytest.mark.parametrize(
    ("cells", "declared", "read_as"),
    [
        (["t", "f", "", "T "], {"positive": "t"}, [1, 0, None, 1]),
        (["Yes", "no"], {"positive": "yes", "negative": "No"}, [1, 0]),
        (["J", "N"], {"positive": "J"}, [1, 0]),
        (["1", "2", "2.0"], {"positive": 2}, [0, 1, 1]),
        (["churned", "stayed"], {"positive": "churned"}, [1, 0]),
        (["0", "1"], {"positive": 0}, [1, 0]),
        (["true", "FALSE"], {"positive": "false"}, [0, 1]),
        (["churned", "stayed", "unsure"], {"positive": "churned", "negative": "stayed"}, [1, 0, None]),
        (["t", "f", "NA"], {"positive": "t", "missing": ["NA"]}, [1, 0, None]),
        (["0", "1", "0.0", "true", "False"], {}, [0, 1, 0, 1, 0]),
    ],
    ids=str,
)
def test_positive_value_of_a_binary_target_is_as_declared(cells, declared, read_as):
    assert labels(*cells, **declared) == read_as


def test_labels_of_a_database_mean_the_same():
    def cast(values, **target):
        return cast_target(pd.Series(values, dtype=object), a_product(target={**TARGET, **target}).target)[0].tolist()

    assert cast([b"\x01", b"\x00"]) == [1, 0]
    assert cast([True, False], positive="false") == [0, 1]
    assert cast([1.0, 2.0, None], positive=1)[:2] == [1, 0]


TARGET = {"name": "late", "task": "binary"}


@pytest.mark.parametrize(
    ("cells", "declared", "message"),
    [
        (["t", "f"], {}, r"false and true, and the 2 of y are 't' and 'f'; set target.positive to .*, such as \"t\""),
        (["1", "2", "2"], {}, r"and the 3 of y are '1' and '2'; set target.positive to the one that means yes"),
        (["Ann", "Bob"], {}, r"and the 2 of y are of 2 other values; set target.positive to the one that means yes$"),
        (
            ["a", "b", "c"],
            {"positive": "a"},
            r"must all be of one value, and in y they are of 2; correct it, or set targ",
        ),
        (["a", "b"], {"positive": "A b"}, r"must all be of one value, and in y they are of 2"),
    ],
    ids=str,
)
def test_labels_that_fit_two_readings_stop_and_ask(cells, declared, message):
    with pytest.raises(UserError, match=message):
        labels(*cells, **declared)


def test_labels_that_are_none_of_two_values_are_left_to_quarantine():
    assert labels("a", "b", "c") == [None] * 3
    assert labels("NA", "NA") == [None] * 2


def test_number_of_positive_labels_is_told(capsys):
    labels("t", "f", "f", "", positive="t")
    assert "source: 1 of 3 labels of y are target.positive" in capsys.readouterr().err


def test_empty_cell_of_many_labels_is_as_declared():
    many = {"task": "multilabel"}
    assert labels("a|b", "", "b", empty="none", **many) == ["a|b", "", "b"]
    assert labels("a|b", "", "b", empty="unknown", **many) == ["a|b", None, "b"]
    assert labels("a|b", "", "NA", empty="none", missing=["NA"], **many) == ["a|b", "", None]
    with pytest.raises(UserError, match=r"1 of 3 cells of y are empty, .*; set target.empty to none or to unknown"):
        labels("a|b", "", "b", **many)


def test_empty_list_of_json_is_none_and_null_is_not_known():
    many = {"task": "multilabel", "kind": "jsonl"}
    assert labels(["b", "a"], [], None, **many) == ["a|b", "", None]
    assert labels(["b", "a"], [], None, "c", **many) == ["a|b", "", None, "c"]
    assert labels(["b"], [], None, "", empty="none", **many) == ["b", "", None, ""]
    assert labels(["b"], [], None, "", **many) == ["b", "", None, None]


def test_mark_alone_is_a_row_without_labels():
    assert head_of("multilabel").normalise_label("|") == ""
    assert has_label(pd.Series(["|"]))[0]


def test_row_that_cannot_be_read_has_no_empty_cell():
    rows = "id,day,depot,y\n1,2024-01-01,A,a\n2,2024-01-01\n"
    Path("rows.csv").write_text(rows)
    product = a_product(
        source={"kind": "csv", "url": "rows.csv"},
        key=["id"],
        columns={"depot": "category"},
        target={"name": "y", "task": "multilabel", "empty": "none"},
        expectations=[],
        gates={},
    )
    assert fetch(product, None, date(2024, 1, 2))["y"].isna().tolist() == [False, True]


def test_labels_of_pieces_that_are_known_count_too():
    Path("rows").mkdir()
    for name, label in (("a.csv", "churned"), ("b.csv", "stayed")):
        Path("rows", name).write_text(f"id,day,depot,y\n{name},2024-01-01,A,{label}\n")
    product = a_product(
        source={"kind": "csv", "url": "rows"},
        key=["id"],
        columns={"depot": "category"},
        target={"name": "y", "task": "binary", "positive": "churned"},
        expectations=[],
        gates={},
    )
    first = {piece.name: piece for piece in fetch_pieces(product, None, date(2024, 1, 2))}
    Path("rows", "c.csv").write_text("id,day,depot,y\nc,2024-01-02,A,lost\n")
    known = {piece.digest for piece in first.values()}
    evidence = {name: piece.evidence for name, piece in first.items()}
    with pytest.raises(UserError, match="must all be of one value, and in y they are of 2"):
        [*fetch_pieces(product, None, date(2024, 1, 2), lambda name, digest: digest in known, evidence.__getitem__)]
