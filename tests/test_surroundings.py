"""Oracle: what the operating system and git themselves say on a full disk, without a clone, without an identity."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from builders import TINY, a_repository
from conftest import ROOT, environment, parcels

from tasks.rows.raw_archive import RawIndex
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import read_json
from tasks.runtime.git import git, has_fetched
from tasks.runtime.surroundings import explained, explained_output
from tasks.stage import exit_code_of

FULL = Path("/dev/full")


def failing(number: int, place: str = "data/x") -> OSError:
    return OSError(number, os.strerror(number), place)


def test_full_disk_is_one_message_that_waiting_may_mend(capsys):
    def work():
        with FULL.open("wb") as file:
            file.write(bytes(1 << 20))

    assert exit_code_of("ingest", work) == 75
    told = capsys.readouterr().err
    assert told.startswith("ingest could not finish now, and may later:\nthe disk must have room, and is full; free ")
    assert "Traceback" not in told


@pytest.mark.parametrize("text", ["Error while serializing: I/O error: No space left on device (os error 28)"])
def test_full_disk_is_known_by_its_words_from_every_library(text):
    assert isinstance(explained(RuntimeError(text)), TransientError)
    assert isinstance(explained_output("dvc push", f"ERROR: unexpected error - {text}"), TransientError)


def test_full_disk_is_known_by_the_words_of_git():
    """As git 2.39 has them when a clone fills a small disk."""
    told = "error: unable to write file x.py\nfatal: sha1 file '/x/.git/index.lock' write error. Out of diskspace"
    assert str(explained_output("git clone", told)).startswith("git clone: the disk must have room, and is full; free")


@pytest.mark.parametrize(
    "number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EISDIR, errno.EEXIST]
)
def test_place_that_a_person_must_mend_is_named(number, capsys):
    assert exit_code_of("ingest", lambda: (_ for _ in ()).throw(failing(number))) == 65
    told = capsys.readouterr().err
    assert told.startswith("ingest stopped:\ndata/x: ")
    assert "; " in told
    assert os.strerror(number) in told


def test_bug_keeps_its_traceback():
    for error in (KeyError("x"), FileNotFoundError(2, "No such file", "x"), ValueError("Permission denied to think")):
        assert explained(error) is None
        with pytest.raises(type(error)):
            exit_code_of("ingest", lambda error=error: (_ for _ in ()).throw(error))
    assert explained_output("dvc repro", "KeyError: 'x'") is None


def test_failure_is_told_where_the_disk_takes_no_result(capsys):
    assert exit_code_of("ingest", lambda: (_ for _ in ()).throw(UserError("mend me")), FULL / "x") == 65
    assert "mend me" in capsys.readouterr().err


def stage(folder: Path, *command: str, limit_bytes: int | None = None, **env: str) -> tuple[int, str]:
    """Exit code and output of a stage's process."""
    limits = None if limit_bytes is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes,) * 2)
    done = subprocess.run(
        [sys.executable, "-m", *(command or ("tasks.ingest", "tiny"))],
        cwd=folder,
        env=environment(folder / "home", PYTHONPATH=str(ROOT), **env),
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=limits,
    )
    return done.returncode, done.stdout


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text(TINY)
    (tmp_path / "source").mkdir()
    parcels().to_csv(tmp_path / "source" / "parcels.csv", index=False)
    return tmp_path


@pytest.mark.long
def test_stage_whose_files_may_not_grow_says_so_and_leaves_nothing_behind(project):
    code, told = stage(project, limit_bytes=300)
    assert code == 65, told
    assert "files must be allowed to be this large, and are not; raise ulimit -f" in told
    assert "Traceback" not in told
    assert not list((project / "data").rglob("*.parquet"))
    assert stage(project)[0] == 0


def test_params_that_are_a_folder_are_one_message(project):
    (project / "params.yaml").unlink()
    (project / "params.yaml").mkdir()
    code, told = stage(project)
    assert (code, "Traceback" in told) == (65, False), told
    assert "a file must lie there, and a folder does" in told


@pytest.mark.long
def test_stage_without_what_it_reads_names_the_command_that_makes_it(project):
    code, told = stage(project, "tasks.evaluate", "tiny")
    assert (code, "Traceback" in told) == (65, False), told
    assert "an earlier stage must have made it, and it is not there; dvc repro <stage>@<product>" in told


def test_damaged_json_is_one_message(tmp_path):
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index.json: must be JSON, and is damaged .*; restore it: dvc checkout"):
        read_json(tmp_path / "index.json")


@pytest.mark.parametrize("content", ["{}", "[]", '{"rows": 1}', '{"rows": {"2024-01-01": {}}, "labels": {}}'])
def test_damaged_index_of_raw_data_is_one_message(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=r"index.json: must be an index of raw data, and is damaged .*dvc checkout"):
        RawIndex.load(tmp_path)


@pytest.mark.parametrize("name", ["LAMPLIGHTER_S3_PORT", "LAMPLIGHTER_UI_PORT"])
@pytest.mark.parametrize("value", ["web", "0", "70000"])
def test_port_that_is_none_is_one_message(name, value, monkeypatch):
    from tasks.runtime.settings import settings

    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name} must be a port from 1 to 65535, got '{value}'; set it so"):
        settings()


def test_folder_without_git_is_told_to_clone(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "README.md").write_text("of a ZIP")
    for command in (("status",), ("ls-remote", str(tmp_path)), ("clone", str(tmp_path), "x")):
        with pytest.raises(UserError, match=r"this must be a git clone, and is not; .*a ZIP of it has no history"):
            git(*command, cwd=tmp_path)


def test_repository_of_another_user_is_told_how_to_be_trusted(tmp_path, monkeypatch):
    a_repository(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(UserError, match=r"belongs to another one; .*--add safe.directory"):
        git("status", cwd=tmp_path)


def test_repository_without_a_commit_or_a_committed_file_is_told(tmp_path):
    a_repository(tmp_path, None)
    with pytest.raises(UserError, match="the origin must have a commit, and has none"):
        git("rev-parse", "HEAD", cwd=tmp_path)
    a_repository(tmp_path)
    with pytest.raises(UserError, match="the file must be committed, and is not"):
        git("show", "HEAD:params.yaml", cwd=tmp_path)


def test_git_without_an_identity_asks_for_one(tmp_path, monkeypatch):
    a_repository(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("EMAIL", "")
    for name in ("user.name", "user.email"):
        git("config", "--unset", name, cwd=tmp_path)
    git("config", "user.useConfigOnly", "true", cwd=tmp_path)
    with pytest.raises(UserError, match="git must know who commits, and does not; git config"):
        git("commit", "--allow-empty", "-m", "x", cwd=tmp_path)


@pytest.mark.parametrize("broken", ["config", "index", "HEAD"])
def test_damaged_clone_is_told_what_to_do_in_any_language(tmp_path, broken, monkeypatch):
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    a_repository(tmp_path)
    (tmp_path / ".git" / broken).write_text("[x\n=")
    with pytest.raises(UserError, match="; "):
        git("status", cwd=tmp_path)


def test_machine_without_git_is_told_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="git must be on PATH, and is not"):
        git("status")


REQUESTS = (("ls-remote", "{}"), ("clone", "{}", "x"), ("fetch", "{}"), ("push", "{}", "HEAD:refs/exps/x"))
"""All that is asked of an origin."""


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda words: words[0])
@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
def test_origin_that_does_not_answer_is_for_waiting(tmp_path, request_, scheme):
    words = [word.format(f"{scheme}://127.0.0.1:1/x.git") for word in request_]
    with pytest.raises(TransientError, match=f"^git {words[0]}"):
        git(*words, cwd=a_repository(tmp_path))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda words: words[0])
@pytest.mark.parametrize("is_mount_point", [True, False])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_origin_whose_disk_is_away_is_for_waiting(tmp_path, request_, is_mount_point, scheme):
    """Without its disk the place is gone, or is the empty folder on which the disk is mounted."""
    origin = tmp_path / "disk" / "x.git"
    if is_mount_point:
        origin.mkdir(parents=True)
    words = [word.format(f"{scheme}{origin}") for word in request_]
    with pytest.raises(TransientError, match=f"{origin}: the origin must be there, and nothing is; where its disk is"):
        git(*words, cwd=a_repository(tmp_path / "clone"))


def test_served_origin_whose_disk_is_away_is_for_waiting():
    """As the server of git 2.39 answers; the words are close to those of a store that refuses."""
    answer = "fatal: remote error: access denied or repository not exported: /lamplighter.git"
    message = explained_output("git fetch", answer)
    assert isinstance(message, TransientError)
    assert str(message).startswith("git fetch: the origin must be there, and its server has none of that name; where")


def test_commit_is_lost_only_where_an_origin_that_answers_has_none(tmp_path, monkeypatch):
    origin, clone = a_repository(tmp_path / "origin"), a_repository(tmp_path / "clone")
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    saved = git("rev-parse", "HEAD", cwd=origin).strip()
    found = {wanted: has_fetched(wanted, clone) for wanted in (saved, "12" * 20, "refs/exps/x")}
    assert found == {saved: True, "12" * 20: False, "refs/exps/x": False}
    origin.rename(tmp_path / "away")
    for wanted in ("12" * 20, "refs/exps/x"):
        with pytest.raises(TransientError, match="the origin must be there, and nothing is"):
            has_fetched(wanted, clone)
