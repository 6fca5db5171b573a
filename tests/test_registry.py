"""Oracle: git's own list of tags, on a real repository with GTO."""

import pytest

from tasks import registry, workspace
from tasks.errors import PassingError
from tasks.registry import Champion


@pytest.fixture
def commits(tmp_path, monkeypatch):
    """Three commits of experiments in an origin, whose clone is the working directory."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for each in (origin, clone):
        workspace.git("init", "--quiet", str(each))
        workspace.git("config", "user.name", "Ada", cwd=each)
        workspace.git("config", "user.email", "ada@localhost", cwd=each)
    made = []
    for i in range(3):
        workspace.git("commit", "--quiet", "--allow-empty", "-m", f"experiment {i}", cwd=origin)
        made.append(workspace.git("rev-parse", "HEAD", cwd=origin).strip())
    workspace.git("fetch", "--quiet", str(origin), "HEAD", cwd=clone)
    for module in (registry, workspace):
        monkeypatch.setattr(module, "ORIGIN", str(origin))
    monkeypatch.chdir(clone)
    return made


def test_champion_is_the_newest_assignment_and_its_tag_says_why(commits, tmp_path):
    assert registry.champion("tiny") is None
    first = registry.promote("tiny", commits[0], None, "approved by the gates")
    assert first == registry.champion("tiny") == Champion(version="v1.0.0", commit=commits[0])
    second = registry.promote("tiny", commits[1], first, "approved by Grace")
    assert second == registry.champion("tiny") == Champion(version="v2.0.0", commit=commits[1])
    assert registry.promote("tiny", commits[1], None, "again") == second, "a retry finds it done"
    with pytest.raises(PassingError, match=r"v2.0.0 has become the champion while this one was judged against another"):
        registry.promote("tiny", commits[2], first, "judged against what was the champion before")
    assert registry.champion("tiny") == second
    told = registry.approval(tmp_path / "origin", "tiny", commits[1])
    assert told.endswith(": approved by Grace (tag tiny#prod#2)")
    assert registry.approval(tmp_path / "origin", "tiny", commits[2]) == "no tag of the origin"
