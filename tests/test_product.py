"""Oracle: rows made for each guess, and the check of params.yaml, which every proposal must pass."""

import csv
import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import yaml
from builders import TINY
from conftest import parcels
from PIL import Image
from test_excel import workbook

from model.features.pixels import is_not_stored
from tasks import params
from tasks.commands.data.product import IMPORTED, propose
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch_whole as fetch

ROWS, LAST_DAY = 60, date(2024, 3, 30)


def rows(**columns):
    """Rows of 30 days with a key, a date, an input and a target."""
    return pd.DataFrame(
        {
            "ticket_id": [f"t{i}" for i in range(ROWS)],
            "day": [f"2024-03-{1 + i // 2:02d}" for i in range(ROWS)],
            "depot": [["A", "B", "C"][i % 3] for i in range(ROWS)],
            "late": [i % 2 for i in range(ROWS)],
            **columns,
        }
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def proposed(frame, target="late"):
    frame.to_csv("rows.csv", index=False)
    text = propose("shop", "rows.csv", target)
    return text, yaml.safe_load(text)["shop"]


def test_parcels_are_declared_as_a_person_would():
    text, entry = proposed(parcels())
    assert entry == {
        "source": {"kind": "csv", "url": "rows.csv"},
        "key": ["parcel_id"],
        "time": "day",
        "columns": {"depot": "category", "weight_kg": "number", "handed_in": "time"},
        "target": {"name": "late", "task": "binary"},
    }
    assert "depot: category  # 3 different values" in text
    assert "key: [parcel_id]  # all values differ" in text


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([f"{i % 25 / 2}" for i in range(ROWS)], "number"),
        (["NL", "DE", "FR"] * 20, "category"),
        ([f"0{i}" for i in range(20)] * 3, "category"),
        ([f"word {i} and three more" for i in range(ROWS)], "text"),
        ([f"2024-03-01T{i % 24:02d}:00:00" for i in range(ROWS)], "time"),
        ([f"x{i}" for i in range(ROWS)], None),
        (["same"] * ROWS, None),
        ([None] * ROWS, None),
    ],
)
def test_kind_of_a_column_is_guessed_from_its_cells(cells, kind):
    text, entry = proposed(rows(guessed=cells))
    assert entry["columns"].get("guessed") == kind
    assert kind or "# guessed: left out: " in text


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([0, 1] * 30, "binary"),
        (["true", "false"] * 30, "binary"),
        (["won", "lost"] * 30, "binary"),
        (["won", "lost", "drawn"] * 20, "multiclass"),
        (["a|b", "b", "c"] * 20, "multilabel"),
        ([i * 1.5 for i in range(ROWS)], "regression"),
        ([1, 2, 3] * 20, "multiclass"),
    ],
)
def test_task_is_guessed_from_the_labels(labels, task):
    text, entry = proposed(rows(late=labels))
    assert entry["target"]["task"] == task
    assert ("of an amount it is regression" in text) == (labels[0] == 1)


def test_rows_without_dates_and_without_a_key_are_declared_so():
    text, entry = proposed(rows().drop(columns=["ticket_id", "day"]))
    assert not {"key", "time", "split"} & entry.keys()
    assert "# key: no column names every row" in text


WORDS = [f"word {i} and three more" for i in range(ROWS)]


@pytest.mark.parametrize(
    ("columns", "n_words", "is_proposed"),
    [
        ({"title": WORDS}, 10**6, True),
        ({"title": WORDS, "body": WORDS[::-1]}, 10**6, True),
        ({"title": WORDS}, 299, False),
        ({"title": WORDS, "depot": ["A", "B"] * (ROWS // 2)}, 10**6, False),
        ({"title": WORDS, "late": [i / 7 for i in range(ROWS)]}, 10**6, False),
    ],
)
def test_imported_weights_are_proposed_for_texts_alone(columns, n_words, is_proposed, monkeypatch):
    monkeypatch.setattr("tasks.commands.data.product.MAX_ENCODED_WORDS", n_words)
    frame = pd.DataFrame({"ticket_id": [f"t{i}" for i in range(ROWS)], "late": [i % 2 for i in range(ROWS)], **columns})
    text, entry = proposed(frame)
    wanted = {"preset": "minilm", "init": IMPORTED, "train": {"probe": True, "epochs": 0}}
    assert entry.get("model") == (wanted if is_proposed else None)
    assert ("would take long to read 300 words" in text) == (n_words == 299)


def test_every_format_and_a_table_are_read(folder):
    import sqlalchemy

    frame = rows()
    frame.to_parquet("rows.parquet")
    frame.to_json("rows.jsonl", orient="records", lines=True)
    frame.to_csv("rows.tsv", sep="\t", index=False)
    frame.to_csv("semicolon.csv", sep=";", index=False, encoding="cp1252")
    frame.to_sql("tickets", sqlalchemy.create_engine("sqlite:///rows.db"), index=False)
    entries = [
        yaml.safe_load(propose("shop", *given))["shop"]
        for given in (
            ("rows.parquet", "late"),
            ("rows.jsonl", "late"),
            ("rows.tsv", "late"),
            ("semicolon.csv", "late"),
            ("sqlite:///rows.db", "late", "tickets"),
        )
    ]
    assert [entry.pop("source")["kind"] for entry in entries] == ["parquet", "jsonl", "csv", "csv", "sql"]
    assert all(entry == entries[0] for entry in entries)


@pytest.mark.parametrize(
    ("file", "target", "message"),
    [
        ("absent.csv", "late", "source.url must exist, and absent.csv does not; correct the path"),
        ("rows.doc", "late", "FROM must be a file that ends in .csv, .*, got 'rows.doc'; save the rows as"),
        ("rows.csv", "lte", "TARGET must be a column, got 'lte'; use one of ticket_id, day, depot, late"),
        ("rows.csv", "same", "TARGET must hold two values or more, and holds 1; use another column"),
        ("empty.csv", "late", "must hold rows, and holds none"),
    ],
)
def test_what_is_wrong_is_said_plainly(file, target, message):
    rows(same="x").to_csv("rows.csv", index=False)
    rows().head(0).to_csv("empty.csv", index=False)
    with pytest.raises(UserError, match=message):
        propose("shop", file, target)


def test_names_that_cannot_be_declared_are_mapped():
    frame = rows(**{"Größe (m)": [f"{i / 4}" for i in range(ROWS)], "dt": ["x", "y"] * 30}).rename(
        columns={"late": "is late?"}
    )
    _, entry = proposed(frame, "is late?")
    assert entry["source"]["names"] == {"Grosse_m": "Größe (m)", "dt_": "dt", "is_late": "is late?"}
    assert entry["columns"] == {"depot": "category", "Grosse_m": "number", "dt_": "category"}
    assert entry["target"]["name"] == "is_late"


def test_german_export_is_declared_as_it_is_written():
    frame = pd.DataFrame(
        {
            "Auftrag Nr": [f"a{i}" for i in range(ROWS)],
            "Datum": [f"{1 + i // 2:02d}.03.2024" for i in range(ROWS)],
            "Umsatz (€)": [f"{1 + i}.{i:03d},5" if i % 3 else "NA" for i in range(ROWS)],
            "Menge": [f"{1 + i % 9}.965" if i % 2 else "985" for i in range(ROWS)],
            "Status": [["offen", "zu", "NA"][i % 3] for i in range(ROWS)],
        }
    )
    frame.to_csv("rows.csv.gz", sep=";", index=False, encoding="cp1252")
    entry = yaml.safe_load(propose("shop", "rows.csv.gz", "Status"))["shop"]
    assert entry["source"] == {
        "kind": "csv",
        "url": "rows.csv.gz",
        "encoding": "cp1252",
        "delimiter": ";",
        "names": {"Auftrag_Nr": "Auftrag Nr", "Umsatz": "Umsatz (€)"},
        "missing": ["NA"],
        "decimal": ",",
        "thousands": ".",
        "time_format": "%d.%m.%Y",
    }
    assert entry["columns"] == {"Umsatz": "number", "Menge": "number"}
    assert (entry["key"], entry["time"], entry["target"]["task"]) == (["Auftrag_Nr"], "Datum", "binary")
    read = fetch(params.parse({"as_of": "2024-03-30", "products": {"shop": entry}}).product("shop"), None, LAST_DAY)
    assert read["Menge"][:2].tolist() == ["985", "2965"]
    assert read["Status"].isna().sum() == ROWS // 3


def test_folder_of_compressed_days_is_proposed_by_its_first_file(folder):
    (folder / "days").mkdir()
    for day, part in rows().groupby("day"):
        part.to_csv(f"days/{day}.csv.gz", sep=";", index=False)
    entry = yaml.safe_load(propose("shop", "days", "late"))["shop"]
    assert entry["source"] == {"kind": "csv", "url": "days", "delimiter": ";"}


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        ([f"{1 + i % 12:02d}/{13 + i % 9}/2024" for i in range(ROWS)], "%m/%d/%Y"),
        ([f"{13 + i % 9}/0{1 + i % 9}/2024 10:30" for i in range(ROWS)], "%d/%m/%Y %H:%M"),
        ([1_709_251_200 + 86_400 * i for i in range(ROWS)], "s"),
        ([1_709_251_200_000 + 86_400_000 * i for i in range(ROWS)], "ms"),
        ([f"2024-03-0{1 + i % 9}" for i in range(ROWS)], None),
    ],
)
def test_format_of_times_is_guessed_where_it_fits_alone(cells, form):
    _, entry = proposed(rows(created=cells).drop(columns="day"))
    assert (entry["time"], entry["source"].get("time_format")) == ("created", form)


def test_times_that_fit_two_formats_are_left_to_a_person():
    text, entry = proposed(rows(created=[f"0{1 + i % 9}/0{1 + i % 8}/2024" for i in range(ROWS)]).drop(columns="day"))
    assert "time_format" not in entry["source"]
    assert "# created reads as %d/%m/%Y and as %m/%d/%Y: set source.time_format to the right one" in text


def test_numbers_with_commas_between_thousands_are_declared_so():
    _, entry = proposed(rows(price=[f"{i},{500 + i}.25" if i else "99.5" for i in range(ROWS)]))
    assert (entry["source"]["thousands"], entry["columns"]["price"]) == (",", "number")


def test_names_of_image_files_are_declared_as_images_beside_the_rows(folder):
    (folder / "shop" / "photos").mkdir(parents=True)
    names = [f"photos/{i}.{end}" for i, end in enumerate(["png", "JPG", "webp"] * (ROWS // 3))]
    for number, name in enumerate(names):
        Image.new("L", (8, 8), number).save(folder / "shop" / name)
    rows(photo=names).drop(columns="ticket_id").to_csv("shop/rows.csv", index=False)
    entry = yaml.safe_load(propose("shop", "shop/rows.csv", "late"))["shop"]
    assert entry["columns"]["photo"] == "image"
    assert entry["source"] == {"kind": "csv", "url": "shop/rows.csv", "images": "shop"}
    assert "key" not in entry
    product = params.parse({"as_of": "2024-03-30", "products": {"shop": entry}}).product("shop")
    assert not is_not_stored(fetch(product, None, LAST_DAY)["photo"].to_numpy(object)).any()


def test_written_entry_is_appended_and_all_before_it_stays(folder):
    (folder / "params.yaml").write_text(TINY)
    rows().to_csv("rows.csv", index=False)
    propose("shop", "rows.csv", "late", write=True)
    text = (folder / "params.yaml").read_text()
    assert text.startswith(TINY.rstrip())
    assert list(params.load().products) == ["tiny", "shop"]
    with pytest.raises(UserError, match=r"params.yaml has a product 'shop'; use another, or edit that entry"):
        propose("shop", "rows.csv", "late", write=True)
    assert (folder / "params.yaml").read_text() == text


def test_file_whose_last_key_is_another_is_left_alone(folder):
    (folder / "params.yaml").write_text(json.dumps(params.raw(TINY)))
    rows().to_csv("rows.csv", index=False)
    with pytest.raises(UserError, match="products must be the last key, and is not; add the entry by hand"):
        propose("shop", "rows.csv", "late", write=True)
    assert json.loads((folder / "params.yaml").read_text())


@pytest.mark.parametrize(
    ("labels", "target"),
    [
        (["t", "f", "f"] * 20, {"task": "binary", "positive": "t"}),
        (["nein", "Ja", "nein"] * 20, {"task": "binary", "positive": "Ja"}),
        (["yes", "no", "no"] * 20, {"task": "binary", "positive": "yes"}),
        (["on", "off", "off"] * 20, {"task": "binary", "positive": "on"}),
        ([1, 2, 2] * 20, {"task": "binary", "positive": "1"}),
        (["stayed", "churned", "stayed"] * 20, {"task": "binary", "positive": "churned"}),
        (["a|b", None, "c"] * 20, {"task": "multilabel", "empty": "unknown"}),
    ],
    ids=str,
)
def test_value_that_means_yes_is_proposed(labels, target):
    assert proposed(rows(late=labels))[1]["target"] == {"name": "late", **target}


def test_number_that_tells_things_apart_is_a_category_and_an_amount_no_key():
    frame = rows(shop_id=[7, 11, 90] * 20, paid=[i * 3 for i in range(ROWS)]).drop(columns="ticket_id")
    text, entry = proposed(frame)
    assert entry["columns"].items() >= {"shop_id": "category", "paid": "number"}.items()
    assert "# key: no column names every row" in text


def test_names_that_yaml_takes_for_something_else_stay_names():
    frame = rows(no=range(ROWS), on=["a", "b"] * 30, null=[1.5, 2.5, 3.5] * 20).rename(columns={"day": "yes"})
    entry = proposed(frame)[1]
    assert entry["time"] == "yes"
    assert entry["columns"].items() >= {"no": "number", "on": "category", "null": "number"}.items()


def test_lines_before_the_header_and_comments_are_proposed(folder):
    Path("rows.csv").write_text("Report of March\n\n" + rows().to_csv(index=False, sep=";"))
    assert yaml.safe_load(propose("shop", "rows.csv", "late"))["shop"]["source"]["skip_lines"] == 2
    text = rows().assign(note='say "hi"').to_csv(index=False, escapechar="\\", doublequote=False, quoting=csv.QUOTE_ALL)
    Path("rows.csv").write_text(f"# made by hand\n{text}# in all\n")
    source = yaml.safe_load(propose("shop", "rows.csv", "late"))["shop"]["source"]
    assert source == {"kind": "csv", "url": "rows.csv", "comment": "#", "escape": "\\"}


def test_workbook_is_proposed_with_its_sheet(folder):
    table = [list(rows()), *rows().astype(object).to_numpy().tolist()]
    Path("rows.xlsx").write_bytes(workbook(Notes=[["x"]], Orders=[["Report"], [None], *table]))
    source = yaml.safe_load(propose("shop", "rows.xlsx", "late"))["shop"]["source"]
    assert source == {"kind": "excel", "url": "rows.xlsx", "sheet": "Orders", "skip_lines": 2}


def test_date_in_the_names_of_files_is_proposed_as_the_time(folder):
    Path("days").mkdir()
    for day in range(1, 8):
        part = rows().drop(columns="day").assign(ticket_id=[f"{day}-{i}" for i in range(ROWS)])
        part.to_csv(f"days/tickets_2024010{day}.csv.gz", index=False)
    entry = yaml.safe_load(propose("shop", "days", "late"))["shop"]
    assert entry["source"]["file_date"] == "%Y%m%d"
    assert entry["time"] == "file_date"


def test_values_within_objects_are_proposed_by_their_paths(folder):
    nested = [{**row, "at": {"place": {"city": "Ulm" if i % 2 else "Bonn"}}} for i, row in enumerate(records())]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nested))
    entry = yaml.safe_load(propose("shop", "rows.jsonl", "late"))["shop"]
    assert entry["source"]["names"] == {"at_place_city": "at.place.city"}
    assert entry["columns"]["at_place_city"] == "category"


def records():
    return json.loads(rows().to_json(orient="records"))
