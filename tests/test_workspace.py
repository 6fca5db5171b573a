"""Oracle: the promises of tasks/workspace.py, on real folders, locks and exit codes."""

import fcntl
import os

import pytest

from tasks import workspace
from tasks.errors import PassingError, UserError

RUN = workspace.Run(
    name="tiny-2024-02-10-train-00000000", product="tiny", as_of="2024-02-10", revision="ab" * 20, shards=3
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "HOME", tmp_path)
    return tmp_path / "runs"


def make(home, name: str, age: int) -> None:
    (home / name).mkdir(parents=True)
    os.utime(home / name, (1_700_000_000 - age, 1_700_000_000 - age))


def test_old_workspaces_make_room_but_not_those_at_work_or_of_other_products(home):
    names = [f"tiny-2024-02-{day:02d}-train-0000000{day}" for day in range(1, 8)]
    for age, name in enumerate(reversed(names)):
        make(home, name, age)
    make(home, "tiny-other-2023-01-01-train-00000001", 999)
    with (home / f"{names[0]}.lock").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        workspace._sweep(RUN)
    kept = {path.name for path in home.iterdir() if path.is_dir()}
    assert kept == {names[0], *names[-workspace.KEPT_WORKSPACES :], "tiny-other-2023-01-01-train-00000001"}


@pytest.mark.parametrize(
    ("code", "lines", "kind"),
    [
        (65, ["validate stopped:", "a rule"], UserError),
        (255, ["ERROR: failed to run: python -m tasks.validate tiny, exited with 65"], UserError),
        (255, ["ERROR: failed to run: python -m tasks.publish tiny, exited with 75"], PassingError),
        (255, ["ERROR: failed to run: python -m tasks.train tiny, exited with -9"], PassingError),
        (255, ["ERROR: failed to run: python -m tasks.train tiny, exited with 137"], PassingError),
        (-9, [], PassingError),
        (255, ["ERROR: failed to run: python -m tasks.train tiny, exited with 1"], workspace.CommandFailed),
        (1, ["a bug"], workspace.CommandFailed),
    ],
)
def test_an_exit_code_says_whether_a_retry_can_help(code, lines, kind):
    with pytest.raises(kind):
        workspace._raise_for(code, lines)


def test_a_message_for_a_person_is_passed_on_without_what_dvc_says_of_it():
    lines = [
        "Running stage 'validate@tiny':",
        "validate stopped:",
        "params.yaml: mend me",
        "ERROR: failed to reproduce 'x'",
    ]
    with pytest.raises(UserError, match=r"^validate stopped:\nparams.yaml: mend me$"):
        workspace._raise_for(65, lines)


def test_success_raises_nothing():
    workspace._raise_for(0, ["exited with 65"])
