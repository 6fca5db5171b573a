"""Oracle: the XML of a workbook, written by hand, and the values that Excel shows of it."""

import io
import zipfile
from datetime import date, datetime

import pandas as pd
import pytest
from builders import a_product

from tasks.rows.casting import cast_column, event_day
from tasks.rows.raw_archive import storable
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch_whole as fetch

pytestmark = pytest.mark.usefixtures("workspace")
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="xml" ContentType='
    '"application/xml"/>'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.'
    'sheet.main+xml"/></Types>'
)
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
STYLES = (
    f'<styleSheet xmlns="{MAIN}"><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/></cellXfs>'
    "</styleSheet>"
)
"""Style 0 is general, 1 a day, 2 a day with its hour: a time is a number of days that is shown as one."""
HEADER = ["id", "day", "depot", "weight_kg", "late"]
ROWS = [HEADER, [1001, "d45352", "A", 1.5, 0], [1002, "d45353", "B", 0.1, 1]]


def cell(value, place):
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in "dt" and value[1:].replace(".", "").isdigit():
        return f'<c r="{place}" s="{1 if value[0] == "d" else 2}"><v>{value[1:]}</v></c>'
    if isinstance(value, str) and value.startswith("#"):
        return f'<c r="{place}" t="e"><v>{value}</v></c>'
    if isinstance(value, bool):
        return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'
    return f'<c r="{place}"><v>{value!r}</v></c>'


def workbook(**sheets):
    """The bytes of a workbook of sheets; of text such as d45352 or t45352.5 the cell is a day or a moment."""
    file = io.BytesIO()
    relation = f'Type="{OFFICE}/worksheet" Target="worksheets/sheet'
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r0" Type="{OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        names = "".join(f'<sheet name="{name}" sheetId="{i}" r:id="r{i}"/>' for i, name in enumerate(sheets, 1))
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{names}</sheets></workbook>'
        )
        files = "".join(f'<Relationship Id="r{i}" {relation}{i}.xml"/>' for i in range(1, len(sheets) + 1))
        styles = f'<Relationship Id="r99" Type="{OFFICE}/styles" Target="styles.xml"/>'
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{PACKAGE}">{files}{styles}</Relationships>'
        )
        archive.writestr("xl/styles.xml", STYLES)
        for i, rows in enumerate(sheets.values(), 1):
            lines = [
                f'<row r="{y}">'
                + "".join(cell(value, f"{chr(64 + x)}{y}") for x, value in enumerate(row, 1))
                + "</row>"
                for y, row in enumerate(rows, 1)
            ]
            archive.writestr(
                f"xl/worksheets/sheet{i}.xml",
                f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>',
            )
    return file.getvalue()


def read(content, **source):
    name = source.pop("name", "rows.xlsx")
    with open(name, "wb") as file:
        file.write(content)
    product = a_product(
        source={"kind": "excel", "url": name, **source},
        key=["id"],
        columns={"depot": "category", "weight_kg": "number"},
        target={"name": "late", "task": "binary"},
        expectations=[],
        gates={},
    )
    return fetch(product, None, date(2024, 3, 31))


def test_cells_of_a_sheet_keep_their_types():
    frame = read(workbook(Orders=ROWS))
    assert frame["id"].tolist() == [1001, 1002]
    assert frame["day"].tolist() == [date(2024, 3, 1), date(2024, 3, 2)]
    assert frame["weight_kg"].tolist() == [1.5, 0.1]
    assert storable(frame["id"]).map(str).tolist() == ["1001", "1002"]


def test_days_beside_moments_and_words_keep_what_they_say():
    other = [["a", "d45352", "A", "#N/A", True], ["007", "t45352.5", None, "1.5", False], ["c", "soon", "x", 2, 0]]
    frame = read(workbook(Orders=[HEADER, *other]))
    assert event_day(frame["day"]).tolist()[:2] == ["2024-03-01", "2024-03-01"]
    assert frame["day"].tolist()[1] == datetime(2024, 3, 1, 12)
    assert pd.isna(event_day(storable(frame["day"]))[2])
    assert frame["weight_kg"].isna().tolist() == [True, False, False]
    assert cast_column(storable(frame["weight_kg"]), "number")[0].tolist()[1:] == [1.5, 2]
    assert frame["id"].tolist() == ["a", "007", "c"]


def test_rows_above_the_header_empty_rows_and_unnamed_columns_are_no_rows():
    sheet = [["Report of March"], [None], [*HEADER, None], [*ROWS[1], "note"], [None], ROWS[2], [None] * 5 + ["total"]]
    frame = read(workbook(Orders=sheet), skip_lines=2)
    assert frame["id"].tolist()[:2] == [1001, 1002]
    assert frame["unreadable_line"].tolist()[2:] == [7]
    with pytest.raises(UserError, match=r"row 2 must name the columns, and is empty; set source.skip_lines"):
        read(workbook(Orders=sheet), skip_lines=1)


def test_sheet_is_named_where_there_are_several():
    book = workbook(Notes=[["x"]], Orders=ROWS)
    for sheet in ("Orders", 1):
        assert len(read(book, sheet=sheet)) == 2
    with pytest.raises(UserError, match=r"it has 2 sheets; set source.sheet to one of 'Notes', 'Orders'"):
        read(book)
    with pytest.raises(
        UserError, match=r"source.sheet must be one of its sheets, got 'Order'; use one of 'Notes', 'Or"
    ):
        read(book, sheet="Order")


@pytest.mark.parametrize(
    ("content", "source", "message"),
    [
        (workbook(O=ROWS)[:-60], {}, "rows.xlsx must be excel; it is compressed, and damaged or cut off"),
        (b"PK\x03\x04" + bytes(60), {}, "rows.xlsx must be excel; it is compressed, and damaged or cut off"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), {}, "it is no workbook that can be read, or is damaged"),
        (b"id,day\n", {}, "it is no workbook, as Excel writes them; set source.kind to what it is, such as csv"),
        (workbook(O=ROWS), {"kind": "csv"}, "it is a workbook, as Excel writes them; set source.kind to excel"),
        (workbook(O=[[*HEADER, "late"], [*ROWS[1], 1]]), {}, r"every column must be named once, got \['late'\] more"),
        (workbook(O=[]), {}, "row 1 must name the columns, and is empty"),
    ],
)
def test_workbook_that_cannot_be_read_is_told_with_its_remedy(content, source, message):
    with pytest.raises(UserError, match=message):
        read(content, **source)


def test_open_document_is_a_workbook_too():
    urn = "urn:oasis:names:tc:opendocument:xmlns"
    spaces = " ".join(f'xmlns:{name}="{urn}:{name}:1.0"' for name in ("office", "table", "text"))
    cells = [
        f'<table:table-cell office:value-type="{kind}" office:{at}="{value}"><text:p/></table:table-cell>'
        for kind, at, value in (
            *(("string", "string-value", name) for name in [*HEADER, "a"]),
            *(("date", "date-value", "2024-03-01"), ("string", "string-value", "A")),
            *(("float", "value", 1.5), ("float", "value", 1)),
        )
    ]
    rows = "".join(f"<table:table-row>{''.join(cells[i : i + 5])}</table:table-row>" for i in (0, 5))
    body = f'<office:body><office:spreadsheet><table:table table:name="S">{rows}</table:table></office:spreadsheet>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "content.xml", f"<office:document-content {spaces}>{body}</office:body></office:document-content>"
        )
        archive.writestr("META-INF/manifest.xml", "<manifest/>")
    frame = read(file.getvalue(), name="rows.ods")
    assert frame[HEADER].to_numpy().tolist() == [["a", date(2024, 3, 1), "A", 1.5, 1]]
