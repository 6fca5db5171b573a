"""Oracle: the values that a person reads in each object, and MongoDB's specification of its extended JSON."""

import json
from datetime import date
from pathlib import Path

import pytest
from builders import a_product

from tasks.rows.casting import event_day
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")


def read(*rows, columns=None, **names):
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    product = a_product(
        source={"kind": "jsonl", "url": "rows.jsonl", "names": names},
        key=["id"],
        columns=columns or {"depot": "category"},
        target={"name": "late", "task": "binary"},
        expectations=[],
        gates={},
    )
    return fetch(product, None, date(2024, 3, 31))


def row(**more):
    return {"id": "a", "day": "2024-03-01", "late": 0, **more}


def test_value_within_objects_is_named_by_its_path():
    rows = row(at={"place": {"city": "Ulm"}}), row(at={"place": None}), row(at="Bonn"), row()
    cities = read(*rows, depot="at.place.city")["depot"]
    assert cities.isna().tolist() == [False, True, True, True]
    assert cities[0] == "Ulm"


def test_key_that_holds_a_dot_stands_before_a_path():
    assert read(row(**{"a.b": "key", "a": {"b": "path"}}), depot="a.b")["depot"].tolist() == ["key"]
    assert read(row(x={"a.b": {"c": "inner"}}), depot="x.a.b.c")["depot"].tolist() == ["inner"]


@pytest.mark.parametrize("path", ["items[1].sku", "items.1.sku"])
def test_path_leads_through_a_list_by_place(path):
    rows = row(items=[{"sku": "x"}, {"sku": "y"}]), row(items=[{"sku": "x"}]), row(items={"sku": "x"})
    assert read(*rows, depot=path)["depot"].fillna("-").tolist() == ["y", "-", "-"]


@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_text_over_all_lines_is_told_with_its_remedy(indent):
    Path("rows.jsonl").write_text(json.dumps([row()] if indent is None else row(), indent=indent))
    with pytest.raises(UserError, match=r"it is one JSON text over all lines; .* jq -c '.\[\]'"):
        fetch(a_product(source={"kind": "jsonl", "url": "rows.jsonl"}), None, date(2024, 3, 31))


def test_path_that_no_row_has_is_told():
    with pytest.raises(UserError, match=r"source.names.depot must be a column of the source, got 'at.city'"):
        read(row(at={"town": "Ulm"}), depot="at.city")


def test_path_to_an_object_is_no_single_value():
    with pytest.raises(UserError, match="all cells of depot are lists, objects or bytes"):
        read(row(at={"place": {"city": "Ulm"}}), depot="at.place")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ({"$oid": "5d505646cf6d4fe581014ab2"}, "5d505646cf6d4fe581014ab2"),
        ({"$numberInt": "42"}, 42),
        ({"$numberLong": "9223372036854775807"}, 9223372036854775807),
        ({"$numberDouble": "42.42"}, "42.42"),
        ({"$numberDecimal": "0.10"}, "0.10"),
        ({"$date": "2024-03-01T12:00:00Z"}, "2024-03-01T12:00:00Z"),
        ({"$date": {"$numberLong": "1709251200500"}}, "2024-03-01T00:00:00.500Z"),
        ({"$date": {"$numberLong": "-1"}}, "1969-12-31T23:59:59.999Z"),
        ({"$date": {"$numberLong": "253402300800000"}}, "253402300800000 milliseconds"),
        ({"$undefined": True}, None),
        ({"$uuid": "3b241101-e2bb-4255-8caf-4136c566a962"}, "3b241101-e2bb-4255-8caf-4136c566a962"),
    ],
    ids=str,
)
def test_extended_json_is_read_as_the_value_that_is_meant(cell, value):
    assert read(row(depot="x"), row(depot=cell))["depot"].astype(object)[1:].tolist() == [value]


def test_moment_of_mongo_decides_the_day():
    day = {"$date": {"$numberLong": "1709251200500"}}
    assert event_day(read({**row(depot="x"), "_id": {"$oid": "a"}, "day": day}, id="_id")["day"])[0] == "2024-03-01"
