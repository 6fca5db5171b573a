"""Oracle: the values that a person reads in each file, written down beside it."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import a_product, declared, mistakes

from tasks.rows.casting import event_day, parse_time
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch as fetch_pieces
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")
HEADER, ROW = b"id,day,depot,weight_kg,late\n", b"a,2024-01-01,A,1.5,0\n"


def read(content, name="rows.csv", columns=None, target=None, time="day", **source):
    Path(name).write_bytes(content)
    return fetched(columns, target, time, url=name, **source)


def product_of(columns=None, target=None, time="day", **source):
    return a_product(
        source={"kind": "csv", **source},
        key=["id"],
        time=time,
        columns=columns or {"depot": "category", "weight_kg": "number"},
        target=target or {"name": "late", "task": "binary"},
        expectations=[],
        gates={},
    )


def fetched(*columns_target_time, **source):
    return fetch(product_of(*columns_target_time, **source), None, date(2024, 1, 2))


def zipped(content, *more):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("rows.csv", *more):
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    "compress", [gzip.compress, bz2.compress, lzma.compress, zipped, lambda c: pa.compress(c, "zstd", asbytes=True)]
)
def test_compressed_file_is_read_by_its_content(compress):
    assert read(compress(HEADER + ROW * 3))["weight_kg"].tolist() == ["1.5"] * 3


def test_compressed_file_that_is_cut_off_is_a_mistake_and_no_passing_failure():
    for compress in (gzip.compress, bz2.compress, lzma.compress, zipped):
        with pytest.raises(UserError, match=r"rows.csv must be csv; "):
            read(compress(HEADER + ROW * 900)[:-40])
    with pytest.raises(UserError, match="it is a ZIP archive of 2 files; keep one"):
        read(zipped(HEADER, "b.csv"))
    with pytest.raises(UserError, match=r"it is a workbook, as Excel writes them; set source.kind to excel"):
        read(zipped(HEADER, "[Content_Types].xml"))


def test_folder_and_pattern_are_read_with_the_columns_of_their_folders(workspace):
    for day in (1, 2):
        folder = workspace / f"rows/event=2024-01-0{day}"
        folder.mkdir(parents=True)
        more = b",new" if day == 2 else b""
        (folder / "part.csv.gz").write_bytes(gzip.compress(HEADER.strip() + more + b"\n" + ROW.strip() + more + b"\n"))
    (workspace / "rows/_SUCCESS").write_bytes(b"")
    for url in ("rows", "rows/", "rows/*/*.csv.gz"):
        frame = fetched(None, None, "event", url=url)
        assert frame["event"].tolist() == ["2024-01-01", "2024-01-02"]
        assert frame["new"].isna().tolist() == [True, False]
    (workspace / "empty").mkdir()
    with pytest.raises(UserError, match="empty must be csv; must hold files, and holds none"):
        fetched(url="empty")


def test_names_of_the_source_are_mapped_wherever_they_are_used():
    content = "Order ID,dt,2nd item,Umsatz (€),Late?,day\na,2024-01-01,x,1.5,0,other\n".encode()
    frame = read(
        content,
        columns={"depot": "category", "weight_kg": {"kind": "number", "from": "Umsatz (€)"}},
        names={"id": "Order ID", "day": "dt", "depot": "2nd item", "late": "Late?"},
    )
    assert frame[["id", "day", "depot", "weight_kg", "late"]].to_numpy().tolist() == [
        ["a", "2024-01-01", "x", "1.5", "0"]
    ]
    with pytest.raises(UserError, match=r"source.names.depot must be a column of the source, got 'Dépot'"):
        read(HEADER + ROW, names={"depot": "Dépot"})
    with pytest.raises(UserError, match=r"source.names must name declared columns, got 'weight'; use one of id"):
        read(HEADER + ROW, names={"weight": "weight_kg"})
    assert "say under source.names which column" in mistakes(declared(time="dt"))[0]


def test_undeclared_columns_may_be_unnamed_or_doubled():
    frame = read(b"id,day,depot,weight_kg,late,note,note,,\n" + ROW.strip() + b",,,,\n")
    assert list(frame) == ["id", "day", "depot", "weight_kg", "late"]


def test_undeclared_columns_of_parquet_are_not_read():
    no_text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    day, depot = pa.array(["2024-01-01"]), pa.array(["A"])
    columns = {"id": depot, "day": day, "depot": depot, "weight_kg": pa.array([1.5]), "late": pa.array([0])}
    table = pa.table([*columns.values(), no_text, depot, depot], [*columns, "note", "twice", "twice"])
    pq.write_table(table, "rows.parquet")
    assert list(fetched(kind="parquet", url="rows.parquet")) == list(columns)
    with pytest.raises(UserError, match=r"rows.parquet must be parquet; .*UTF8"):
        fetched({"note": "text"}, kind="parquet", url="rows.parquet")
    pq.write_table(table.append_column("day", day), "rows.parquet")
    with pytest.raises(UserError, match=r"must deliver every column once, got \['day'\] more than once"):
        fetched(kind="parquet", url="rows.parquet")


def test_rows_that_all_have_another_number_of_cells_are_told_so():
    with pytest.raises(UserError, match="all 3 rows: must have 5 cells as the header has, and has 6, first on line 2"):
        read(HEADER + (ROW.strip() + b",\n") * 3)


def test_escape_lines_before_the_header_and_spaces_are_read_as_declared():
    frame = read(
        b"# a report\n# of today\nid, day, depot, weight_kg, late\n" + b'a, 2024-01-01, "5\\" wide, \\\\", 1, 0\nb\n',
        escape="\\",
        skip_lines=2,
        skip_space=True,
    )
    assert frame["depot"][0] == '5" wide, \\'
    assert frame["unreadable_line"].dropna().tolist() == [5]


def test_words_for_missing_are_missing_where_declared_and_words_elsewhere():
    content = HEADER + b"a,2024-01-01,NA,NA,0\nb,2024-01-01,\\N,1,NA\n"
    frame = read(content, missing=["NA", "\\N"])
    assert frame.isna().to_numpy().tolist() == [[False, False, True, True, False], [False, False, True, False, True]]
    assert read(content)["depot"].tolist() == ["NA", "\\N"]


def test_word_for_missing_is_found_between_spaces():
    content = HEADER + b"a,2024-01-01, NA ,?,1\n"
    frame = read(content, missing=["NA", "?"])
    assert frame[["depot", "weight_kg"]].isna().all(axis=None)


def test_word_for_missing_becomes_no_class_in_silence():
    content = HEADER + b"a,2024-01-01,A,1,icu\nb,2024-01-01,A,1,NA\nc,2024-01-01,A,1,home\n"
    target = {"name": "late", "task": "multiclass"}
    with pytest.raises(UserError, match=r"in late 1 of 3 labels are the word 'NA'; set source.missing: \[\"NA\"\]"):
        read(content, target=target)
    assert read(content, target=target, missing=["NA"])["late"].isna().tolist() == [False, True, False]
    assert read(content, target=target, missing=[])["late"][1] == "NA"


def test_word_for_missing_in_a_column_of_numbers_is_told_with_its_remedy(capsys):
    content = HEADER + b"a,2024-01-01,NA,NA,0\nb,2024-01-01,A,1,0\nc,2024-01-01,A,x,0\n"
    read(content)
    shown = capsys.readouterr().err
    assert "source: every cell of weight_kg must be a number, and 1 of 3 are the word 'NA'" in shown
    assert 'set source.missing: ["NA"]' in shown
    assert "depot" not in shown
    read(content, missing=["NA"])
    read(content, missing=[])
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("cell", "stored"),
    [
        ("7.703,19", "7703.19"),
        ("1.965", "1965"),
        ("985", "985"),
        ("-0,5", "-0.5"),
        ("1.234.567", "1234567"),
        ("1.5", '"1.5"'),
        ("1234.567", '"1234.567"'),
        ("heavy", "heavy"),
    ],
)
def test_number_is_read_in_the_declared_form_or_is_none(cell, stored):
    content = f"id;day;depot;weight_kg;late\na;2024-01-01;A;{cell};0\n".encode()
    frame = read(content, delimiter=";", decimal=",", thousands=".")
    assert frame["weight_kg"].tolist() == [stored]


def ambiguous(*cells):
    return HEADER + "".join(f"{i},2024-01-01,A,{cell},0\n" for i, cell in enumerate(cells)).encode()


def test_numbers_that_fit_two_readings_stop_and_ask():
    content = ambiguous(*["1.965", "2.225"] * 6, "985")
    with pytest.raises(UserError, match=r"numbers of weight_kg fit two readings: 12 of 13 have a dot.*source.decimal"):
        read(content)
    assert read(content, decimal=".")["weight_kg"][0] == "1.965"
    assert read(content, decimal=",", thousands=".")["weight_kg"][0] == "1965"

    with pytest.raises(UserError, match=r"fit two readings: 12 of 12 have a dot"):
        read(ambiguous(*["1.965", "2.225"] * 6))


@pytest.mark.parametrize(
    ("cells", "form", "message"),
    [
        (["1,965", "985"], {}, r'12 of 24 cells of weight_kg have "," .*thousands: "," .*, or source.decimal: ","'),
        (["1,965.50"], {"decimal": "."}, r'12 of 12 .* have "," .*source.thousands: ","'),
        (["12,5"], {}, r'12 of 12 .* have "," .*or source.decimal: ","'),
        (
            ["1.965,50", "985"],
            {"decimal": ","},
            r'12 of 24 .* have "\." .*source.thousands: "\." where it parts thousands$',
        ),
        (["1'965"], {}, """ have "'" """),
        (["1 965", "985"], {}, ' have " " '),
        (["1\u00a0965,5"], {"decimal": ","}, r' have "\\u00a0" '),
    ],
)
def test_marks_that_nothing_declares_stop_and_ask_before_the_large_numbers_are_lost(cells, form, message):
    with pytest.raises(UserError, match=message):
        read(ambiguous(*[f'"{cell}"' for cell in cells * 12]), **form)


@pytest.mark.parametrize("cells", [["1,2,3"], ["a 1"], ["2024-01-01"], ["1.5", "1e3"], ["10 000 km"]])
def test_what_is_no_number_in_any_form_is_not_asked_about(cells):
    assert len(read(ambiguous(*[f'"{cell}"' for cell in cells * 12]))) == 12 * len(cells)


@pytest.mark.parametrize("others", [["0.985"], ["1.5"], ["1000"]])
def test_numbers_with_honest_decimals_are_not_asked_about(others):
    assert isinstance(read(ambiguous(*["1.965", "2.225"] * 6, *others)), pd.DataFrame)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_mark_of_byte_order_is_no_part_of_the_first_name(encoding):
    content = (HEADER + ROW).decode()
    for text in (content, "\ufeff" + content):
        assert read(text.encode(encoding), encoding=encoding)["id"].tolist() == ["a"]


def test_quote_with_a_backslash_is_told_how_to_be_read():
    row = b'a,2024-01-01,"A ""or\\" B",1.5,0\n'
    with pytest.raises(UserError, match=r"line 2: .* a quote within quotes is written twice, or with source.escape"):
        read(HEADER + row)
    row = b'a,2024-01-01,"A \\"or\\" B",1.5,0\n'
    assert read(HEADER + row, escape="\\")["depot"].tolist() == ['A "or" B']


def test_names_that_begin_with_a_space_are_shown_so():
    Path("rows.csv").write_bytes((HEADER + ROW).replace(b",", b", "))
    with pytest.raises(UserError, match=r"lacks day.* it has id, ' day', .*; set source.skip_space: true"):
        list(fetch_pieces(product_of(url="rows.csv"), None, date(2024, 1, 2)))


def dates(*cells, **source):
    content = (
        b"id,when,depot,weight_kg,late\n" + "".join(f"{i},{cell},A,1,0\n" for i, cell in enumerate(cells)).encode()
    )
    zone = source.pop("zone", "UTC")
    Path("rows.csv").write_bytes(content)
    product = replace(product_of(None, None, "when", url="rows.csv", **source), time_zone=zone)
    return parse_time(fetch(product, None, date(2024, 1, 2))["when"]).astype("str").fillna("none").tolist()


@pytest.mark.parametrize(
    ("form", "cell", "read_as"),
    [
        ("%d.%m.%Y", "03.04.2024", "2024-04-03"),
        ("%m/%d/%Y", "03/04/2024", "2024-03-04"),
        ("%d.%m.%Y", "2024-04-03", "2024-04-03"),
        ("%d.%m.%Y", "31.02.2024", "none"),
        ("%d%m%Y", "03042024", "2024-04-03"),
        ("%d%m%Y", "20240403", "none"),
        ("%Y%m%d", "20240403", "2024-04-03"),
        (None, "20240403", "2024-04-03"),
        (None, "03.04.2024", "none"),
        (None, "1712188800", "none"),
        ("%d.%m.%Y %H:%M %z", "03.04.2024 00:30 +0200", "2024-04-02 22:30:00"),
        (None, "2024-04-03 10:30:00 UTC", "2024-04-03 10:30:00"),
        ("s", "1712188800", "2024-04-04"),
        ("s", "1712188800.9", "2024-04-04"),
        ("ms", "1712188800999", "2024-04-04"),
        ("us", "1712188800000000", "2024-04-04"),
        ("ns", "1712188800000000001", "2024-04-04"),
        ("s", "-1", "1969-12-31 23:59:59"),
        ("s", "1712188800000", "none"),
        ("s", "20240403", "1970-08-23 06:20:03"),
        ("%d.%m.%Y", "31.12.9999", "9999-12-31"),
    ],
)
def test_time_is_read_in_the_declared_format_or_is_none(form, cell, read_as):
    found = dates(cell, time_format=form)[0]
    assert found.removesuffix(" 00:00:00") == read_as


@pytest.mark.parametrize(
    ("form", "cell", "on_the_clock"),
    [
        (None, "2024-03-01T23:30:00Z", "2024-03-02 00:30:00"),
        (None, "2024-03-01 23:30:00.250 UTC", "2024-03-02 00:30:00"),
        (None, "2024-07-01 23:30:00-05:00", "2024-07-02 06:30:00"),
        (None, "2024-03-01 23:30:00", "2024-03-01 23:30:00"),
        ("s", "1709335800", "2024-03-02 00:30:00"),
        ("%d.%m.%Y %H:%M UTC", "01.03.2024 23:30", "none"),
        ("%d.%m.%Y %H:%M UTC", "01.03.2024 23:30 UTC", "2024-03-02 00:30:00"),
        ("%d.%m.%Y %H:%M", "01.03.2024 23:30", "2024-03-01 23:30:00"),
    ],
)
def test_moment_belongs_to_its_day_in_the_products_time_zone(form, cell, on_the_clock):
    assert dates(cell, time_format=form, zone="Europe/Berlin") == [on_the_clock]


def test_typed_moment_belongs_to_its_day_in_the_products_time_zone():
    moment = pd.Timestamp("2024-03-01 23:30", tz="UTC")
    pd.DataFrame({"id": ["a"], "when": [moment], "depot": "A", "weight_kg": 1.0, "late": 0}).to_parquet("rows.parquet")
    product = product_of(None, None, "when", kind="parquet", url="rows.parquet")
    for zone, day in (("UTC", "2024-03-01"), ("Europe/Berlin", "2024-03-02")):
        cells = fetch(replace(product, time_zone=zone), None, date(2024, 1, 2))["when"]
        assert event_day(cells).tolist() == [day]


@pytest.mark.parametrize("form", ["%H:%M", "%d.%m.", "dd.mm.yyyy", "seconds", "%Y-%m-%d %Z", "%Q", ""])
def test_format_that_names_no_day_is_refused(form):
    source = {"kind": "csv", "url": "rows.csv", "time_format": form}
    assert (
        "source.time_format must be one of s, ms, us, ns, or name year, month" in mistakes(declared(source=source))[0]
    )


def test_words_for_missing_hold_of_times_and_keys_too():
    frame = read(HEADER + b"?,?,A,1,0\n", missing=["?"])
    assert frame[["id", "day"]].isna().to_numpy().tolist() == [[True, True]]


def test_one_column_is_written_otherwise_than_the_others():
    columns = {
        "depot": {"kind": "category", "missing": ["n/a"]},
        "weight_kg": {"kind": "number", "from": "Gewicht (kg)", "decimal": ",", "thousands": "."},
        "price": "number",
        "at": {"kind": "time", "time_format": "ms"},
    }
    header = b"id;Tag;depot;Gewicht (kg);price;at;late\n"
    rows = b"a;01.02.2024;n/a;1.234,5;1.5;1709251200500;x\nb;02.02.2024;-;-;-;-;?\n"
    target = {"name": "late", "task": "multiclass", "missing": ["?"]}
    form = {"delimiter": ";", "time_format": "%d.%m.%Y", "missing": ["-"], "names": {"day": "Tag"}}
    frame = read(header + rows, columns=columns, target=target, **form)
    assert frame["depot"].isna().tolist() == [True, False]  # "-" is a depot: its own words stand alone
    assert frame[["weight_kg", "price", "day"]].iloc[0].tolist() == ["1234.5", "1.5", "2024-02-01T00:00:00"]
    assert frame["at"][0] == "2024-03-01T00:00:00.500000"
    assert frame[["weight_kg", "price", "at", "late"]].iloc[1].isna().all()


def test_date_in_the_name_of_a_file_is_a_column(workspace):
    (workspace / "sales").mkdir()
    for day in ("20240301", "20240302"):
        (workspace / f"sales/eu_{day}.csv.gz").write_bytes(gzip.compress(b"id,depot,weight_kg,late\na,A,1,0\n"))
    assert fetched(None, None, "file_date", url="sales", file_date="%Y%m%d")["file_date"].tolist() == [
        "2024-03-01",
        "2024-03-02",
    ]
    one = fetched(None, None, "day", url="sales/eu_20240302.csv.gz", file_date="eu_%Y%m%d.", names={"day": "file_date"})
    assert one["day"].tolist() == ["2024-03-02"]
    (workspace / "sales/year=2024/month=3/day=07").mkdir(parents=True)
    (workspace / "sales/year=2024/month=3/day=07/a.csv").write_bytes(b"id,depot,weight_kg,late\na,A,1,0\n")
    parts = fetched(None, None, "file_date", url="sales/year=2024", file_date="year=%Y/month=%m/day=%d")
    assert parts["file_date"].tolist() == ["2024-03-07"]
    (workspace / "sales/eu_20240302T1530.csv").write_bytes(b"id,depot,weight_kg,late\na,A,1,0\n")
    hours = fetched(None, None, "file_date", url="sales/*T*", file_date="%Y%m%dT%H%M")
    assert hours["file_date"].tolist() == ["2024-03-02T15:30:00"]


@pytest.mark.parametrize("header", ["ID,Day,Depot,Weight_KG,Late", "id,day,depot,Weight_kg ,late"])
def test_names_in_other_letters_are_proposed(header):
    Path("rows.csv").write_bytes(header.encode() + b"\n" + ROW)
    with pytest.raises(UserError, match=r'are they meant\? source.names: {.*"weight_kg": "W.*"}'):
        list(fetch_pieces(product_of(url="rows.csv"), None, date(2024, 1, 2)))


def test_archive_of_one_file_may_hold_what_macos_adds():
    assert len(read(zipped(HEADER + ROW, "__MACOSX/._rows.csv", ".DS_Store"))) == 1


def test_line_for_excel_before_the_header_is_told_with_its_remedy():
    with pytest.raises(UserError, match=r"set source\.skip_lines: 1"):
        read(b"sep=,\r\n" + HEADER + ROW)
    assert len(read(b"sep=,\r\n" + HEADER + ROW, skip_lines=1)) == 1


def test_tar_archive_is_told_with_its_remedy():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("rows.csv"), io.BytesIO())
    with pytest.raises(UserError, match="it is a tar archive; unpack it and name the folder"):
        read(file.getvalue())


@pytest.mark.parametrize("name", ["sales.csv", "20240230.csv", "20240301_20240302.csv", "120240301.csv"])
def test_file_without_the_date_in_its_name_is_told(workspace, name):
    (workspace / "sales").mkdir()
    (workspace / "sales" / name).write_bytes(HEADER + ROW)
    with pytest.raises(UserError, match=rf"sales/{name} must be csv; its name must hold one date as source.file_date"):
        fetched(url="sales", file_date="%Y%m%d")
