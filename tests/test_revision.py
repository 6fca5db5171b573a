"""Oracle: git itself, on a folder and an origin elsewhere: what the newest commit of the origin does not have."""

import pytest
from builders import TINY, a_repository
from conftest import ROOT

from tasks.commands.embedded import revision, run
from tasks.commands.embedded.airflow_process import AirflowProcess
from tasks.runtime.errors import UserError
from tasks.runtime.git import git


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A clone of an origin elsewhere that declares the tiny product; it is the working directory."""
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "params.yaml").write_text(TINY)
    a_repository(origin)
    git("clone", "--quiet", str(origin), str(tmp_path / "folder"))
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    monkeypatch.chdir(tmp_path / "folder")
    a_repository(tmp_path / "folder", message=None)
    return tmp_path / "folder"


def commit(folder, message):
    git("add", "--all", cwd=folder)
    git("commit", "--quiet", "-m", message, cwd=folder)


def test_nothing_is_noted_where_the_origin_has_all(folder, capsys):
    assert revision.print_uncommitted(folder) == []
    assert capsys.readouterr().out == ""


def test_commits_that_are_not_pushed_are_named(folder, capsys):
    pushed = git("rev-parse", "HEAD", cwd=folder)[:12]
    (folder / "params.yaml").write_text(TINY.replace("epochs: 8", "epochs: 9"))
    commit(folder, "Train longer")
    (line,) = revision.print_uncommitted(folder)
    assert line.startswith(f"note: a run is made from {pushed} of ")
    assert "; 1 commits of this folder are not pushed there and not part of it (git push): " in line
    assert line.endswith(" Train longer")
    assert capsys.readouterr().out == line + "\n"
    git("push", "--quiet", "origin", "HEAD:pushed", cwd=folder)
    git("reset", "--quiet", "--hard", "pushed", cwd=folder.parent / "origin")
    assert revision.print_uncommitted(folder) == []


def test_uncommitted_changes_that_runs_read_are_named_first(folder):
    (folder / "notes.md").write_text("")
    (folder / "params.yaml").write_text(TINY + "# new\n")
    (line,) = revision.print_uncommitted(folder)
    assert line.endswith("; 2 uncommitted changes are not part of it: params.yaml, notes.md")


def test_commit_of_the_origin_that_the_folder_lacks_is_noted(folder):
    origin = folder.parent / "origin"
    (origin / "other").write_text("")
    commit(origin, "By another person")
    (line,) = revision.print_uncommitted(folder)
    assert "which this folder does not have yet: git pull brings it" in line


def test_product_that_only_this_folder_declares_is_an_error(folder):
    assert revision.declared_product("tiny").name == "tiny"
    (folder / "params.yaml").write_text(TINY.replace("  tiny:", "  small:"))
    with pytest.raises(
        UserError, match=r"products.small must be declared by the newest commit of the origin, .* push it"
    ):
        revision.declared_product("small")
    with pytest.raises(UserError, match="did you mean"):
        revision.declared_product("smal")


def test_of_two_runs_at_once_each_is_known_by_its_own_lines(folder, tmp_path, monkeypatch, capsys):
    """A stand-in for Airflow prints as its tasks do, while another run's experiment appears in the origin."""
    own, other = "tiny-2024-02-10-train-aaaaaaaa", "tiny-2024-02-10-train-bbbbbbbb"
    head, origin = git("rev-parse", "HEAD", cwd=folder).strip(), str(folder.parent / "origin")
    (tmp_path / "airflow.py").write_text(
        "import subprocess\n"
        f"for name in {[other, own]!r}:\n"
        f"    reference = f'refs/exps/{head[:2]}/{head[2:]}/{{name}}'\n"
        f"    subprocess.run(['git', 'update-ref', reference, '{head}'], cwd={origin!r}, check=True)\n"
        f"print('raw data carried on from {other}')\n"
        f"print('{own}: as_of 2024-02-10, revision x')\n"
        f"print('{own} ▸ ingest')\n"
    )
    with AirflowProcess({"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}) as airflow:
        assert run._run_dag(airflow, "tiny", "train", "2024-02-10") == own
    assert f"{own} ▸ ingest" in capsys.readouterr().out
    assert run.named_run([f"{other} ▸ ingest"], "tiny", "predict") is None
