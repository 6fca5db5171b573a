"""Oracle: git's own list of tags, on a real repository with GTO; its own commands, as docs/operations.md gives them."""

import re
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from builders import a_repository
from conftest import ROOT

from tasks.runs import registry
from tasks.runs.registry import Champion
from tasks.runtime import git
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.settings import settings


@pytest.fixture
def commits(tmp_path, monkeypatch):
    """Three commits of experiments in an origin, whose clone is the working directory."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for each in (origin, clone):
        a_repository(each, message=None)
    made = []
    for i in range(3):
        git.git("commit", "--quiet", "--allow-empty", "-m", f"experiment {i}", cwd=origin)
        made.append(git.git("rev-parse", "HEAD", cwd=origin).strip())
    git.git("fetch", "--quiet", str(origin), "HEAD", cwd=clone)
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    monkeypatch.chdir(clone)
    return made


DAY, LATER = date(2024, 2, 10), date(2024, 2, 20)


def promote(commit, over, why="approved by the gates", as_of=DAY):
    return registry.promote("tiny", commit, as_of, over, why)


def by_hand(command):
    """A command that a person types in a clone of the origin, which has its tags."""
    program, *arguments = shlex.split(command)
    git.git("fetch", "--quiet", "--tags", "--force", settings().origin)
    subprocess.run([Path(sys.executable).parent / program, *arguments], check=True, capture_output=True)
    git.git("push", "--quiet", "--tags", settings().origin)


def keep_as_experiment(commit, as_of):
    name = f"tiny-{as_of}-train-{commit[:8]}"
    git.git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/{name}", commit, cwd=Path(settings().origin))


def test_champion_is_the_newest_assignment_and_its_tag_says_why(commits, tmp_path):
    assert registry.champion("tiny") is None
    first = promote(commits[0], None)
    assert first == registry.champion("tiny") == Champion(version="v1.0.0", commit=commits[0])
    second = promote(commits[1], first, "approved by Grace")
    assert second == registry.champion("tiny") == Champion(version="v2.0.0", commit=commits[1])
    assert promote(commits[1], None, "again") == second, "a retry finds it done"
    with pytest.raises(
        TransientError, match=r"v2.0.0 has become the champion while this one was judged against another"
    ):
        promote(commits[2], first, "judged against what was the champion before")
    assert registry.champion("tiny") == second
    told = registry.approval(tmp_path / "origin", "tiny", commits[1])
    assert told.endswith(": approved by Grace (tag tiny#prod#2)")
    assert registry.approval(tmp_path / "origin", "tiny", commits[2]) == "no tag of the origin"


def test_rollback_is_the_command_of_the_documents_and_may_itself_be_undone(commits):
    first = promote(commits[0], None)
    second = promote(commits[1], first)
    documented = (ROOT / "docs" / "operations.md").read_text("utf-8")
    command = re.search(r"^(gto assign .*?) &&", documented, flags=re.MULTILINE)[1]
    by_hand(command.replace("flight-delays", "tiny"))
    assert registry.champion("tiny") == first
    assert promote(commits[1], first) == second == registry.champion("tiny")


def test_withdrawn_model_predicts_no_longer(commits):
    first = promote(commits[0], None)
    promote(commits[1], first)
    by_hand("gto deprecate tiny v2.0.0 prod")
    assert registry.champion("tiny") == first
    by_hand("gto deprecate tiny v1.0.0 prod")
    assert registry.champion("tiny") is None


def test_version_is_a_new_one_whatever_was_registered_or_deleted_by_hand(commits):
    by_hand(f"gto register tiny {commits[2]} --version v3.0.0")
    first = promote(commits[0], None)
    assert first == registry.champion("tiny") == Champion(version="v4.0.0", commit=commits[0])
    git.git("tag", "--delete", "tiny@v3.0.0", cwd=Path(settings().origin))
    assert promote(commits[1], first).version == "v5.0.0"


def test_tags_of_a_try_that_was_killed_stop_no_further_one(commits):
    git.git("tag", "-a", "tiny@v1.0.0", "-m", "of the killed try", commits[2])
    git.git("tag", "-a", "tiny#prod#1", "-m", "of the killed try", commits[2])
    assert promote(commits[0], None) == registry.champion("tiny")
    assert registry.champion("tiny").commit == commits[0]


def test_assignment_whose_version_is_missing_is_told(commits):
    promote(commits[0], None)
    git.git("tag", "--delete", "tiny@v1.0.0", cwd=Path(settings().origin))
    with pytest.raises(UserError, match=r"must have a tag tiny@v\.\.\., and has none in the origin; push that tag too"):
        registry.champion("tiny")


def test_past_night_has_its_champion_and_an_old_model_replaces_no_later_one(commits):
    keep_as_experiment(commits[0], LATER)
    keep_as_experiment(commits[1], DAY)
    champion = promote(commits[0], None, as_of=LATER).version
    assert registry.champion("tiny", trained_until=DAY) is None
    of_then = promote(commits[1], registry.champion("tiny"), as_of=DAY)
    assert promote(commits[1], None, as_of=DAY).version == of_then.version, "a retry finds it done"
    versions = {day: registry.champion("tiny", trained_until=day).version for day in (DAY, LATER)}
    assert versions == {DAY: of_then.version, LATER: champion}
    assert registry.champion("tiny").version == champion
