"""Oracle: the rows that a person sees in a file, and what they would not dare to say; Python's own writer of CSV."""

import csv
import io
from datetime import date
from pathlib import Path

import pytest
from builders import a_product
from hypothesis import given
from hypothesis import strategies as st

from tasks.params import CsvSource
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch_whole as fetch
from tasks.sources.formats.csv_rows import BAD_QUOTE, TWO_READINGS, CsvRows

HEADER = "id,name,town\n"


def rows(text, **source):
    """The rows of a file below its header: cells, or rule and line where a row cannot be read."""
    found = CsvRows(io.StringIO(text, newline=""), CsvSource(kind="csv", url="-", **source))
    n_cells = len(found.header())
    return [
        row if isinstance(row, list) else (row["unreadable"], row["unreadable_line"]) for row in found.rows(n_cells)
    ]


GOOD = [["1", "Ann", "Ulm"], ["2", "Bob", "Bonn"], ["3", "Cem", "Köln"]]
LINES = ["1,Ann,Ulm\n", "2,Bob,Bonn\n", "3,Cem,Köln\n"]


@pytest.mark.parametrize(
    "bad",
    ['9,"Ann" x,Ulm\n', '9,"Ann"x"",Ulm\n', '9,"Ann,Ulm\n', '9,Ann,"Ulm\n', '"9,Ann,Ulm\n', '9,"A"n"n",Ulm\n'],
)
@pytest.mark.parametrize("place", range(4))
def test_one_row_with_a_wrong_quote_is_marked_and_the_rest_go_on(bad, place):
    lines = [*LINES[:place], bad, *LINES[place:]]
    assert rows(HEADER + "".join(lines)) == [*GOOD[:place], (BAD_QUOTE, place + 2), *GOOD[place:]]


def test_two_rows_with_wrong_quotes_are_two():
    assert rows(HEADER + '8,"A,Ulm\n' + LINES[0] + '9,"B,Ulm\n' + LINES[1]) == [
        (BAD_QUOTE, 2),
        GOOD[0],
        (BAD_QUOTE, 4),
        GOOD[1],
    ]


def test_row_that_is_quoted_behind_a_missing_quote_stays_a_row():
    assert rows(HEADER + '9,"Ann,Ulm\n1,"Ann",Ulm\n' + LINES[1]) == [(BAD_QUOTE, 2), GOOD[0], GOOD[1]]


@pytest.mark.parametrize(
    "text",
    [
        '9,"Ann\nwrote, in short,\nthis" too,Ulm\n',  # no line by itself says where the row ends
        '9,"Ann\nwrote" this\nand that,Ulm\n',
        '"9\n9"x,Ann,Ulm\nline",Ann,Ulm\n',
        '"9\n1,Ann,Ulm\n9",Ann,Ulm,x\n',  # one row of three lines, or three rows
        '"9,Ann,Ulm\n8,Bob,Bonn"\n',
        '9,"Ann,Ulm\n',
    ],
    ids=range(6),
)
def test_rows_that_cannot_be_told_apart_stop(text):
    if text.count("\n") == 1:
        assert rows(HEADER + text + LINES[0]) == [(BAD_QUOTE, 2), GOOD[0]]
        text += "no row\n"
    with pytest.raises(ValueError, match=r"line 2: |lines 2 to"):
        rows(HEADER + text)


def test_row_over_several_lines_that_lacks_a_cell_is_one():
    assert rows(HEADER + '9,"Ann\nof Ulm"\n' + LINES[0]) == [
        ("row: must have 3 cells as the header has, and has 2", 2),
        GOOD[0],
    ]


def test_rows_with_wrong_quotes_may_follow_each_other():
    assert rows(HEADER + '8,"Ann"x,Ulm\n9,"Bob"y,Bonn\n' + LINES[0]) == [(BAD_QUOTE, 2), (BAD_QUOTE, 3), GOOD[0]]


def test_lost_delimiter_before_a_quote_is_marked_though_cells_are_enough():
    assert rows('id,name,town,more\n9,Ann"Smith, Ann",x\n1,Ann,Ulm,x\n') == [
        (TWO_READINGS, 2),
        ["1", "Ann", "Ulm", "x"],
    ]


@pytest.mark.parametrize("cell", ['5"" pipe"', '5"" pipe', 'say \\"hi'])
def test_quotes_written_as_within_quotes_are_marked_outside_of_them(cell):
    assert rows(HEADER + f"9,{cell},Ulm\n" + LINES[0]) == [(TWO_READINGS, 2), GOOD[0]]


@pytest.mark.parametrize(
    "row", [["9", 'a 5" pipe', "Ulm"], ["9", 'so "called"', 'the "best"'], ["9", '5"', '7"'], ["9", 'x"', "y"]]
)
def test_quotes_within_cells_that_fit_one_reading_are_text(row):
    assert rows(HEADER + ",".join(row) + "\n") == [row]


def test_comments_between_rows_are_none_and_within_cells_are_text():
    text = '# made by hand\nid,name,town\n#,x,y\n1,Ann,"Ulm\n# on Danube"\n# total 1\n'
    assert rows(text, comment="#") == [["1", "Ann", "Ulm\n# on Danube"]]
    assert rows('//a\nid,name,town\n9,"Ann,Ulm\n// b\n1,Ann,Ulm\n', comment="//") == [(BAD_QUOTE, 3), GOOD[0]]


def test_backslash_before_quotes_asks_for_the_escape():
    text = HEADER + '1,"say \\"hi\\"",Ulm\n' + LINES[1]
    with pytest.raises(ValueError, match=r"source.escape"):
        rows(text)
    assert rows(text, escape="\\") == [["1", 'say "hi"', "Ulm"], GOOD[1]]


@given(st.lists(st.lists(st.text(st.sampled_from('ab,"\n;# ')), min_size=3, max_size=3), max_size=8))
def test_what_a_writer_wrote_is_read_as_it_was(table):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["x", "y", "z"], *table])
    assert rows(file.getvalue()) == table


def lines_of(table):
    """The lines of a CSV file as Python's own writer makes it, a header before them."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([["x", "y", "z"], *table])
    return file.getvalue().splitlines(keepends=True)


@given(st.lists(st.lists(st.sampled_from(["a", "b c", "", "d,e"]), min_size=3, max_size=3), min_size=1), st.data())
def test_one_quote_too_many_never_changes_another_row(table, data):
    """A line with one more quote somewhere is marked, read as text, or the file stops; no other row differs."""
    lines = lines_of(table)
    at = data.draw(st.integers(1, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[at]) - 1))
    lines[at] = lines[at][:place] + '"' + lines[at][place:]
    try:
        found = rows("".join(lines))
    except ValueError:
        return
    assert len(found) == len(table)
    assert found[: at - 1] + found[at:] == table[: at - 1] + table[at:]


@given(st.lists(st.lists(st.sampled_from(["a", "b c", 'x "y"', "d,e"]), min_size=3, max_size=3), min_size=1), st.data())
def test_delimiter_or_quote_that_is_lost_never_changes_another_row(table, data):
    lines = lines_of(table)
    at = data.draw(st.integers(1, len(lines) - 1))
    place = data.draw(st.sampled_from([i for i, mark in enumerate(lines[at]) if mark in ',"']))
    lines[at] = lines[at][:place] + lines[at][place + 1 :]
    try:
        found = rows("".join(lines))
    except ValueError:
        return
    assert len(found) == len(table)
    assert found[: at - 1] + found[at:] == table[: at - 1] + table[at:]


def test_lines_of_marked_rows_are_those_of_the_file(workspace):
    Path("rows.csv").write_text('a\nb\n# c\nid,day,depot,late\n\n1,2024-01-01,"A,0\n2,2024-01-01,B,1\nTotal,,,\n')
    source = {"kind": "csv", "url": "rows.csv", "skip_lines": 2, "comment": "#"}
    changes = {"columns": {"depot": "category"}, "expectations": [], "gates": {}, "key": ["id"]}
    frame = fetch(a_product(source=source, **changes), None, date(2024, 1, 2))
    assert frame["id"].tolist()[:2] == ["2", "Total"]
    assert frame["unreadable_line"].tolist()[2] == 6
    Path("rows.csv").write_bytes(b"id,day,depot,late\n1,2024-01-01,A,0\n2,\xff,B,1\n")
    with pytest.raises(UserError, match=r"after line \d: every byte must be utf-8"):
        fetch(a_product(source={"kind": "csv", "url": "rows.csv"}, **changes), None, date(2024, 1, 2))
