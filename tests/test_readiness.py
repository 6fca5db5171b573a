"""Oracle: the clock, and a file that grows while it is looked at."""

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
import yaml
from builders import a_product, declared, mistakes
from conftest import ROOT, parcels

from tasks.ready import ready
from tasks.runs import readiness
from tasks.runs.experiments import Run
from tasks.runs.readiness import is_ready, waits_until
from tasks.runtime.errors import UserError

AS_OF, SCORED = date(2024, 2, 10), "2024-02-11"
READY = {"rows_at_least": 20, "until": "05:00"}
BEFORE, AFTER = datetime(2024, 2, 11, 4, 59, tzinfo=UTC), datetime(2024, 2, 11, 5, 0, tzinfo=UTC)


def write_source(folder, n_rows: int) -> None:
    """All rows up to the scored day, and of that one so many."""
    frame = parcels()
    frame = frame[frame["day"] <= SCORED].groupby("day", group_keys=False).head(20)
    late = frame[frame["day"] == SCORED].index[n_rows:]
    (folder / "source").mkdir(exist_ok=True)
    frame.drop(late).to_csv(folder / "source" / "parcels.csv", index=False)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose workspace has the project's code and a product that waits."""
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    monkeypatch.setattr(readiness, "exclusive_workspace", lambda run, reads: nullcontext())
    opened = Run(name="tiny-2024-02-10-predict-0", product="tiny", as_of=str(AS_OF), revision="a" * 40, shards=1)
    opened.workspace.mkdir(parents=True)
    for name in ("tasks", "model"):
        (opened.workspace / name).symlink_to(ROOT / name)
    (opened.workspace / "params.yaml").write_text(yaml.safe_dump(declared(schedule__ready=READY)))
    return opened


@pytest.mark.slow
def test_night_waits_until_its_rows_are_at_the_source(run, capsys):
    assert not is_ready(run, BEFORE), "the file has not come"
    write_source(run.workspace, 12)
    assert not is_ready(run, BEFORE)
    write_source(run.workspace, 20)
    assert is_ready(run, BEFORE)
    printed = capsys.readouterr().out
    assert "not ready, waiting until 05:00 UTC: ready stopped:\nparams.yaml: products.tiny.source.url must" in printed
    assert [line for line in printed.splitlines() if line.endswith("awaited")] == [
        "not ready, waiting until 05:00 UTC: 12 rows of 2024-02-11 at the source, 20 are awaited",
        "ready: 20 rows of 2024-02-11 at the source, 20 are awaited",
    ]


def test_night_is_judged_with_what_has_come_once_the_hour_has_passed(run, capsys):
    """The source is not even there."""
    assert is_ready(run, AFTER)
    assert "2024-02-11 05:00 UTC has passed; judged with what has come" in capsys.readouterr().out
    assert is_ready(run), "an old night waits for nothing"


def test_product_that_declares_nothing_waits_for_nothing(run):
    (run.workspace / "params.yaml").write_text(yaml.safe_dump(declared()))
    assert is_ready(run, BEFORE)
    assert waits_until(a_product(), AS_OF) is None


def test_hour_is_that_of_the_products_time_zone():
    tokyo = replace(a_product(schedule__ready=READY), time_zone="Asia/Tokyo")
    assert waits_until(tokyo, AS_OF) == datetime(2024, 2, 10, 20, 0, tzinfo=UTC)


def test_rows_of_other_days_do_not_count(workspace):
    write_source(workspace, 7)
    found = ready(a_product(), AS_OF)
    assert (found.rows, str(found)) == (7, "7 rows of 2024-02-11 at the source")


def test_source_that_cannot_be_read_is_told_as_it_is(workspace):
    with pytest.raises(UserError, match="must exist"):
        ready(a_product(), AS_OF)


@pytest.mark.parametrize("until", ["5:00", "24:00", 300, "soon"])
def test_hour_that_is_none_is_one_message(until):
    (mistake,) = mistakes(declared(schedule__ready={"rows_at_least": 1, "until": until}))
    assert mistake.startswith("products.tiny.schedule.ready.until must be ")
