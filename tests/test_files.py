"""Oracle: what is on the disk after a write that failed or was killed; hashlib over the plain bytes."""

import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from tasks.rows.partitions import read_pieces, read_table, read_tables, table_writer, write_table
from tasks.runtime.files import atomic_file, atomic_folder, file_sha256, folder_sha256, read_json, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.runtime.files import atomic_file, atomic_folder
with {writer}(Path("{name}")) as aside:
    (aside / "a" if aside.is_dir() else aside).write_text("new, and half of i")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*"))


def test_file_that_fails_while_it_is_written_leaves_the_old_one(tmp_path):
    file = tmp_path / "deep" / "file"
    with atomic_file(file) as aside:
        aside.write_text("old")
        assert not file.exists()
    with pytest.raises(TypeError), atomic_file(file) as aside:
        aside.write_text("new", encoding=7)
    assert file.read_text() == "old"
    assert names(tmp_path) == ["deep", "deep/file"]


def test_folder_that_fails_while_it_is_written_leaves_the_old_one(tmp_path):
    folder = tmp_path / "folder"
    with atomic_folder(folder) as aside:
        (aside / "a").write_text("old")
        assert not folder.exists()
    with pytest.raises(TypeError), atomic_folder(folder) as aside:
        (aside / "b").write_text(str((aside / "c").write_text("new")), encoding=7)
    assert names(tmp_path) == ["folder", "folder/a"]
    with atomic_folder(folder) as aside:
        (aside / "b").write_text("new")
    assert names(tmp_path) == ["folder", "folder/b"]


def test_file_of_a_new_folder_is_synced_once_before_it_is_seen(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("tasks.runtime.files._fsync", lambda path: synced.append(path.name))
    with atomic_folder(tmp_path / "folder") as aside:
        with atomic_file(aside / "sub" / "file") as temporary:
            temporary.write_text("x")
        assert synced == []
        unfinished = aside.name
    assert sorted(synced) == sorted(["file", "sub", unfinished, tmp_path.name])
    with atomic_file(tmp_path / "folder" / "other") as temporary:
        temporary.write_text("y")
    assert synced[4:] == [temporary.name, "folder"]


@pytest.mark.parametrize("writer", ["atomic_file", "atomic_folder"])
def test_writer_who_is_killed_leaves_the_old_and_nothing_that_a_reader_looks_at(tmp_path, writer):
    place = tmp_path / ("dt=2024-01-01.parquet" if writer == "whole_file" else "folder")
    with (atomic_file if writer == "whole_file" else atomic_folder)(place) as aside:
        (aside if writer == "whole_file" else aside / "a").write_text("old")
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if (tmp_path / name).is_file()}
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(writer=writer, name=place.name)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    left = [name for name in names(tmp_path) if name not in before and name != "folder"]
    assert left
    assert all(name.startswith(".") for name in left)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not [file for file in tmp_path.glob("dt=*.parquet") if file.name.startswith(".")]


@pytest.mark.parametrize("nth", [0, 1])
def test_folder_whose_writer_was_killed_between_its_renames_is_put_back(tmp_path, nth):
    folder = tmp_path / "folder"
    with atomic_folder(folder) as aside:
        (aside / "a").write_text("old")
    moved = []

    class KilledError(BaseException):
        pass

    def rename(here, there):
        if len(moved) == nth:
            raise KilledError
        moved.append(there)
        os.rename(here, there)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KilledError), atomic_folder(folder) as aside:
            (aside / "b").write_text("new")
    assert folder.exists() == (nth == 0)
    with atomic_folder(folder) as aside:
        assert names(folder) == ["a"]
        (aside / "c").write_text("newer")
    assert names(tmp_path) == ["folder", "folder/c"]


def test_json_is_the_same_bytes_for_the_same_content_and_holds_no_nan(tmp_path):
    file = tmp_path / "report.json"
    write_json(file, {"b": 1, "a": ["é", None, 0.1]})
    before = file.read_bytes()
    assert read_json(file) == {"b": 1, "a": ["é", None, 0.1]}
    write_json(file, read_json(file))
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, {"a": math.nan})
    assert file.read_bytes() == before
    assert names(tmp_path) == ["report.json"]


def test_table_is_the_same_bytes_whatever_its_index(tmp_path):
    table = pd.DataFrame({"a": ["x", None], "b": pd.array([1, None], "Int8"), "c": [True, False]})
    write_table(tmp_path / "1", table)
    write_table(tmp_path / "2", table.set_index(pd.Index([7, 9])))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    pd.testing.assert_frame_equal(read_table(tmp_path / "1"), table)


def test_long_integers_with_gaps_are_read_exactly(tmp_path):
    write_table(tmp_path / "t", pd.DataFrame({"a": pd.Series([2**62 + 1, None], dtype=object)}))
    assert read_table(tmp_path / "t")["a"].tolist() == [2**62 + 1, None]


def test_partitions_are_read_in_order_of_date_and_up_to_one(tmp_path):
    for day in ("2024-01-03", "2024-01-01", "2024-01-02"):
        write_table(tmp_path / f"dt={day}.parquet", pd.DataFrame({"a": [day[-1]], "b": ["x"]}))
    (tmp_path / ".dt=2024-01-02.parquet.tmp-1").write_bytes(b"half")
    read = read_tables(tmp_path, until=date(2024, 1, 2))
    assert read.to_dict("list") == {"a": ["1", "2"], "b": ["x", "x"], "dt": ["2024-01-01", "2024-01-02"]}
    assert list(read.index) == [0, 1]
    assert list(read_tables(tmp_path, columns=["a"]).columns) == ["a", "dt"]
    assert read_tables(tmp_path / "absent").empty


def test_integers_stay_integers_beside_partitions_of_floats(tmp_path):
    for day, value in (("2024-01-01", 2**60 + 1), ("2024-01-02", 0.5)):
        write_table(tmp_path / f"dt={day}.parquet", pd.DataFrame({"a": [value]}))
    assert read_tables(tmp_path)["a"].tolist() == [2**60 + 1, 0.5]


def test_partitions_have_the_columns_that_are_asked_for_whatever_they_were_stored_with(tmp_path):
    whole = pd.DataFrame({"a": ["x"], "b": ["y"], "c": [2**60 + 1]})
    stored = {"2024-01-01": ["b"], "2024-01-02": ["c", "b", "a"], "2024-01-03": ["a", "c"]}
    for day, columns in stored.items():
        write_table(tmp_path / f"dt={day}.parquet", whole[columns])
    for columns in (["a", "c"], ["c", "a"]):
        read = read_tables(tmp_path, columns)
        assert list(read.columns) == [*columns, "dt"]
        assert read[["a", "c"]].astype(object).where(read.notna(), None).to_numpy().tolist() == [
            [None, None],
            ["x", 2**60 + 1],
            ["x", 2**60 + 1],
        ]
        assert list(read_tables(tmp_path / "absent", columns).columns) == list(read.columns)


def test_table_written_in_pieces_is_the_same_bytes_as_one_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 4)
    table = pd.DataFrame({"a": [f"x{i}" for i in range(11)], "b": pd.array([*range(10), None], "Int8")})
    write_table(tmp_path / "whole", table)
    for cuts in ([0, 11], [0, 0, 1, 2, 9, 11], [0, 4, 8, 11]):
        with table_writer(tmp_path / "pieces") as write:
            for start, stop in itertools.pairwise(cuts):
                write(table[start:stop])
            assert not (tmp_path / "pieces").exists()
        assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
        (tmp_path / "pieces").unlink()


def test_pieces_of_a_table_are_its_row_groups_within_the_range(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.rows.partitions.ROWS_AT_ONCE", 4)
    write_table(tmp_path / "t", pd.DataFrame({"a": range(11)}))
    assert [piece["a"].to_pylist() for piece in read_pieces(tmp_path / "t", range(3, 9))] == [[3], [4, 5, 6, 7], [8]]
    assert [len(piece) for piece in read_pieces(tmp_path / "t")] == [4, 4, 3]
    assert list(read_pieces(tmp_path / "t", range(5, 5))) == []


def test_hash_of_a_folder_is_that_of_its_names_and_contents(tmp_path):
    for name, content in (("b/c", b"1"), ("a", b"2")):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(content)
    lines = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in (("a", b"2"), ("b/c", b"1"))
    )
    assert folder_sha256(tmp_path / "x") == hashlib.sha256(lines.encode()).hexdigest()
    assert file_sha256(tmp_path / "x" / "a") == hashlib.sha256(b"2").hexdigest()
    before = folder_sha256(tmp_path / "x")
    (tmp_path / "x" / "a").rename(tmp_path / "x" / "d")
    assert folder_sha256(tmp_path / "x") != before
