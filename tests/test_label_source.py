"""Oracle: the same rows and labels in one file."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product, mistakes
from test_params import declared

from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch

pytestmark = pytest.mark.usefixtures("workspace")
ROWS = "id,day,depot\n1000,2024-01-01,A\n1001,2024-01-01,B\n1002,2024-01-02,A\n1003,2024-01-02,\n"
LABELS = "Nr;late\n1002;t\n1000.0;f\n9;t\n1001;\n1000;t\n"


def pieces(known=(), **source):
    product = a_product(
        source={"kind": "csv", "url": "rows.csv"},
        key=["id"],
        columns={"depot": "category"},
        target={
            "name": "late",
            "task": "binary",
            "positive": "t",
            "source": {"kind": "csv", "url": "labels.csv", "delimiter": ";", "names": {"id": "Nr"}, **source},
        },
        expectations=[],
        gates={},
    )
    return [*fetch(product, None, date(2024, 1, 3), lambda name, digest: digest in known)]


def write(rows=ROWS, labels=LABELS):
    Path("rows.csv").write_text(rows)
    Path("labels.csv").write_text(labels)


def test_rows_get_the_labels_of_their_keys_from_another_source(capsys):
    write()
    (piece,) = pieces()
    assert piece.rows["id"].tolist() == ["1000", "1001", "1002", "1003"]
    assert piece.rows["late"].fillna("-").tolist() == ["t", "-", "t", "-"]
    assert "products.tiny.target.source: 3 of 4 labels of late are target.positive" in capsys.readouterr().err


def test_label_that_changes_has_the_rows_read_again():
    write()
    first = pieces()[0].digest
    assert pieces(known=[first])[0].rows is None
    write(labels=LABELS.replace("9;t\n1001;\n", "1001;\n9;t\n"))
    assert pieces()[0].digest == first
    write(labels=LABELS.replace("1001;\n", "1001;f\n"))
    assert pieces(known=[first])[0].rows["late"].fillna("-").tolist() == ["t", "f", "t", "-"]


def test_column_of_the_rows_that_is_called_like_the_target_is_none():
    write(rows="id,day,depot,late\n1000,2024-01-01,A,9\n")
    assert pieces()[0].rows["late"].tolist() == ["t"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "Nr;late\nx;t\ny;f\n",
            r"target.source: labels must have the keys of rows \(id\), and none of 2 has that of one of 4",
        ),
        ("Nr;lat\n1000;t\n", "tiny.target.source must deliver every declared column, and lacks late"),
        (
            "Nr;late\n1000;t\n1001;f\n1002;maybe\n",
            "target.source: labels that are not target.positive must all be of one",
        ),
    ],
)
def test_labels_that_cannot_be_right_stop_with_their_place(labels, message):
    write(labels=labels)
    with pytest.raises(UserError, match=message):
        pieces()


def test_labels_of_a_source_without_a_key_are_refused():
    content = declared(target__source={"kind": "csv", "url": "labels.csv"})
    del content["products"]["tiny"]["key"]
    assert any("target.source must have a key by which labels find their rows" in line for line in mistakes(content))


def test_rows_of_labels_that_cannot_be_read_are_told(capsys):
    write(labels=LABELS + "1003\n")
    assert pd.isna(pieces()[0].rows["late"][3])
    assert "target.source: 1 rows cannot be read and are left out" in capsys.readouterr().err


def test_keys_whose_labels_differ_are_told(capsys):
    write()
    assert pieces()[0].rows["late"][0] == "t"
    assert "1 keys have several labels that differ; the last one of each stands" in capsys.readouterr().err
    write(labels="Nr;late\n1000;t\n1000;t\n1001;f\n")
    pieces()
    assert "differ" not in capsys.readouterr().err
