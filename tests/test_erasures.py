"""Oracle: git's own refusal and ancestry; HMAC of the standard library; the law that no row comes back in silence."""

import hashlib
import hmac
import json
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import a_product, a_repository, report

from tasks.commands.upkeep.erase import lock_alone
from tasks.erasure.made import Judged, cleaned, recounted
from tasks.erasure.subject import subject_of
from tasks.ingest import ingest
from tasks.rows.intake.erased import FILE, KEY_FILE, Erased, Tombstone, Tombstones, file_of, keyed_hash, made_key
from tasks.runs.locks import locked, removal_lock
from tasks.runs.registry.erasures import Erasures, check_knows, read_erasures, reference, write_erasures
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git

ABOUT = {"decided": "2024-03-01", "person": "Ann", "why": "asked"}


def decide(values: dict[str, str], folder: Path = Path()) -> str:
    """Write that values were erased, as `make erase` does; their keyed hash."""
    key = made_key()
    digest = keyed_hash(key, "tiny", values)
    stones = Tombstones.read(folder / file_of("tiny"))
    stone = Tombstone(columns=tuple(sorted(values)), hmac=digest, **ABOUT)
    Tombstones(key=keyed_hash(key, "tiny", {}), erased=(*stones.erased, stone)).write(folder / file_of("tiny"))
    return digest


def deliver(*rows: tuple[str, str, str]) -> None:
    """A delivery of parcels: key, depot and weight."""
    Path("source").mkdir(exist_ok=True)
    about = {"day": "2024-02-09", "handed_in": "2024-02-09T08:00:00", "late": 1}
    frame = pd.DataFrame([{"parcel_id": key, "depot": depot, "weight_kg": kg, **about} for key, depot, kg in rows])
    frame.to_csv("source/parcels.csv", index=False)


def stored() -> list[str]:
    files = Path("data/raw/tiny/rows").glob("*.parquet")
    return sorted(key for file in files for key in pd.read_parquet(file)["parcel_id"].astype(str))


def test_hash_is_that_of_the_standard_library_and_its_key_is_secret(workspace):
    digest = decide({"parcel_id": "p1"})
    file = workspace / "home" / KEY_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    text = json.dumps(["tiny", [["parcel_id", "p1"]]]).encode()
    assert digest == hmac.new(file.read_text().strip().encode(), text, hashlib.sha256).hexdigest()
    assert made_key() == file.read_text().strip().encode(), "it is made once"
    assert "p1" not in Path(f"decisions/tiny/{FILE}").read_text().replace(digest, "")


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ({"parcel_id": "17"}, ["18", "19"]),
        ({"depot": "B"}, ["17"]),
        ({"depot": "B", "weight_kg": "3"}, ["17", "18"]),
        ({"parcel_id": "B"}, ["17", "18", "19"]),
    ],
)
def test_what_was_erased_is_dropped_and_counted(workspace, values, left):
    decide(values)
    deliver(("17", "A", "1"), ("18", "B", "2"), ("19", "B", "3.0"))
    line = ingest(a_product(), date(2024, 2, 9))
    assert stored() == left
    found = report("ingest.json")
    assert (found["rows_delivered"], found["rows_new"], found["rows_erased"]) == (3, len(left), 3 - len(left))
    assert ("rows dropped that were erased" in line) == (len(left) < 3)


def test_row_that_cannot_be_read_is_dropped_where_its_text_names_it(workspace):
    decide({"parcel_id": "p17"})
    deliver(("p16", "A", "1"), ("p18", "A", "1"))
    with Path("source/parcels.csv").open("a") as file:
        file.write('"p17",2024-02-09,A\n"p177",2024-02-09,A\n')
    ingest(a_product(), date(2024, 2, 9))
    assert report("ingest.json")["rows_erased"] == 1
    texts = [str(file.read_bytes()) for file in Path("data/raw/tiny").rglob("*.json")]
    assert not any("p17 " in text for text in texts)


@pytest.mark.parametrize("other", [None, "another key, which is as long as it has to be"])
def test_machine_without_the_key_ingests_nothing(workspace, other):
    decide({"parcel_id": "17"})
    file = workspace / "home" / KEY_FILE
    file.unlink() if other is None else file.write_text(other)
    deliver(("17", "A", "1"))
    with pytest.raises(UserError, match=rf"must be on this machine, and .*copy .*{KEY_FILE}"):
        ingest(a_product(), date(2024, 2, 9))
    assert not Path("data/raw/tiny/rows").exists()


def test_damaged_tombstones_let_nothing_through(workspace):
    decide({"parcel_id": "17"})
    file_of("tiny").write_text("{}]")
    with pytest.raises(UserError, match="without it what was erased comes back"):
        Erased("tiny")


def test_run_that_does_not_know_what_was_erased_ends(workspace, monkeypatch):
    origin, clone = workspace / "origin", workspace / "clone"
    a_repository(origin)
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    git("clone", "--quiet", str(origin), str(clone))
    digest, revision = decide({"parcel_id": "17"}, origin), git("rev-parse", "HEAD", cwd=origin).strip()
    git("config", "user.name", "Ann", cwd=origin)
    git("add", "decisions", cwd=origin)
    git("commit", "--quiet", "-m", "A person asked", cwd=origin)
    decided = git("rev-parse", "HEAD", cwd=origin).strip()
    write_erasures("tiny", Erasures(erased=(digest,), revision=decided), *_known(workspace / "one"))
    erasures, commit = read_erasures("tiny", workspace / "two")
    assert erasures.erased == (digest,)
    with pytest.raises(UserError, match="a person has had rows of tiny erased since this run was opened"):
        check_knows("tiny", clone, commit, "a run")
    git("pull", "--quiet", cwd=clone)
    check_knows("tiny", clone, commit, "a run that was opened since")
    file_of("tiny")
    (clone / file_of("tiny")).unlink()
    check_knows("tiny", clone, commit, "a run of a later revision, in which a person let them in again")
    git("checkout", "--quiet", revision, cwd=clone)
    with pytest.raises(UserError, match="start a new run"):
        check_knows("tiny", clone, commit, "a run")
    with pytest.raises(TransientError):  # another erasure has come first
        write_erasures("tiny", Erasures(), *_known(workspace / "three", before="0" * 40))
    assert reference("tiny") in git("ls-remote", str(origin), cwd=clone)


def _known(folder: Path, before: str | None = None) -> tuple[str, Path]:
    _, commit = read_erasures("tiny", folder)
    return before or commit, folder


def test_nothing_is_erased_while_a_task_is_at_work(workspace):
    import fcntl

    with locked(removal_lock(), fcntl.LOCK_SH), ExitStack() as locks, pytest.raises(TransientError, match="one is"):
        lock_alone(locks)


@pytest.mark.parametrize(
    ("key", "message"),
    [("colour=red", ""), ("depot=", "no value"), ('{"colour": "red"}', "got colour"), ("{]", "JSON object")],
)
def test_key_that_is_none_is_refused(key, message):
    if key == "colour=red":
        assert subject_of(a_product(), key, b"k").values == {"parcel_id": "colour=red"}, "a key may be written so"
        return
    with pytest.raises(UserError, match=message):
        subject_of(a_product(), key, b"k")


def test_reports_lose_what_is_said_of_the_row_and_no_figure():
    subject = subject_of(a_product(), "123456", b"k")
    found = {
        "rows": 123456,
        "single_rows": [{"key": "123456", "score": 0.5, "columns": {"depot": 1}}, {"key": "1234567", "score": 0.1}],
        "groups": [{"of": [{"key": "a 123456 b"}]}],
        "names": {"123456": 1, "other": "of 123456"},
    }
    assert cleaned(found, subject) == {
        "rows": 123456,
        "single_rows": [{"key": "1234567", "score": 0.1}],
        "groups": [{"of": []}],
        "names": {"other": "(erased)"},
    }


def test_counts_of_a_report_are_those_of_the_rows_that_stay():
    from collections import Counter

    def counts(n, bad):
        return {"rows_in": n, "rows_valid": n - bad, "rows_quarantined": bad}

    validation = {
        "rows": counts(30, 3),
        "labels": counts(5, 0),
        "rows_by_date": {"2024-01": counts(20, 2), "2024-02-01": counts(10, 1)},
        "labels_by_date": {"2024-02-01": counts(5, 0)},
        "scored_day": {"date": "2024-02-01", **counts(10, 1)},
    }
    judged = Judged(
        valid={"rows": Counter({"2024-01-03": 1, "2024-02-01": 1}), "labels": Counter({"2024-02-01": 1})},
        quarantined={"rows": Counter({"2024-01-05": 1})},
    )
    found = recounted(validation, judged)
    assert found["rows"] == counts(27, 2)
    assert found["rows_by_date"] == {"2024-01": counts(18, 1), "2024-02-01": counts(9, 1)}
    assert (found["labels"], found["scored_day"]) == (counts(4, 0), {"date": "2024-02-01", **counts(9, 1)})
