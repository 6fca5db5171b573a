"""Oracle: the law that a backfill makes each missing night once, in order; a list of what was asked for."""

import threading
from datetime import date, timedelta
from types import SimpleNamespace

import pytest
from builders import TINY, a_repository
from conftest import ROOT, call, environment

from tasks.commands.nights import backfill as module
from tasks.commands.nights.backfill import fill, stands, table
from tasks.runtime.errors import TransientError, UserError

DAYS = [date(2024, 2, 10) + timedelta(days=i) for i in range(5)]
NIGHT = SimpleNamespace(rows=SimpleNamespace(published=1234), model=SimpleNamespace(version="v1.0.0"), withdrawn=None)


class Nights:
    at_once = 1
    """What a store holds, and what was made, in order; each of `failures` is raised once, instead of making its day."""

    def __init__(self, *held: date, **failures: BaseException) -> None:
        self.held, self.made = dict.fromkeys(held, NIGHT), []
        self.failures = {DAYS[int(day.removeprefix("day"))]: error for day, error in failures.items()}

    def make(self, day: date) -> None:
        if day in self.failures:
            raise self.failures.pop(day)
        self.made.append(day)
        self.held[day] = NIGHT

    def filled(self, *, force: bool = False) -> list[str]:
        return [line.state for line in fill(DAYS, self.held.get, self.make, force=force, at_once=self.at_once)]


def test_only_missing_nights_are_made_in_order():
    nights = Nights(DAYS[1], DAYS[3])
    assert nights.filled() == ["published"] * 5
    assert nights.made == [DAYS[0], DAYS[2], DAYS[4]]
    assert nights.filled() == ["published"] * 5
    assert len(nights.made) == 3, "nothing is missing any more"


def test_nights_that_are_there_are_made_anew_only_by_force():
    nights = Nights(*DAYS)
    nights.filled(force=True)
    assert nights.made == DAYS


def test_night_that_a_person_has_withdrawn_is_left_alone_and_shown_so():
    nights = Nights(*DAYS)
    nights.held[DAYS[1]] = SimpleNamespace(
        **{**vars(NIGHT), "withdrawn": SimpleNamespace(person="Ada", reason="a broken feed")}
    )
    line = list(fill(DAYS, nights.held.get, nights.make, force=False))[1]
    assert line.cells == ("2024-02-11", "withdrawn", "1,234", "v1.0.0", "Ada: a broken feed")
    assert nights.made == []


def test_stopped_night_keeps_its_reason_and_the_later_ones_are_made():
    nights = Nights(day1=UserError("validate stopped:\n0 rows, and 3 to 63 may be"))
    lines = list(fill(DAYS, nights.held.get, nights.make, force=False))
    assert [line.state for line in lines] == ["published", "stopped", *["published"] * 3]
    assert table(lines).splitlines()[:3] == [
        "as_of       state      rows   model   reason",
        "2024-02-10  published  1,234  v1.0.0",
        "2024-02-11  stopped                   validate stopped: 0 rows, and 3 to 63 may be",
    ]


def test_night_that_stands_and_is_stopped_anew_is_shown_with_both():
    nights = Nights(*DAYS, day0=UserError("a drift"))
    line = next(iter(fill(DAYS, nights.held.get, nights.make, force=True)))
    assert line.cells == ("2024-02-10", "stopped", "1,234", "v1.0.0", "a drift")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TransientError("the store does not answer"), RuntimeError()])
def test_backfill_that_ends_anywhere_goes_on_with_what_is_missing(error):
    nights = Nights(day2=error)
    with pytest.raises(type(error)):
        nights.filled()
    assert nights.made == DAYS[:2]
    assert nights.filled() == ["published"] * 5
    assert nights.made == DAYS


def test_night_that_another_backfill_makes_meanwhile_is_left_alone():
    nights = Nights()
    lines = fill(DAYS, nights.held.get, nights.make, force=False)
    next(lines)
    nights.held[DAYS[1]] = NIGHT
    assert {line.state for line in lines} == {"published"}
    assert DAYS[1] not in nights.made


def test_two_nights_are_made_at_a_time_and_shown_in_order():
    nights, pair = Nights(), threading.Barrier(2, timeout=30)

    def make(day):
        pair.wait()  # for ever, were they made one by one
        nights.make(day)

    lines = list(fill(DAYS[:4], nights.held.get, make, force=False, at_once=2))
    assert [(line.as_of, line.state) for line in lines] == [(day, "published") for day in DAYS[:4]]
    assert sorted(nights.made) == DAYS[:4]


def test_night_in_a_process_of_its_own_says_why_it_stopped(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(TINY)
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(a_repository(tmp_path)))
    with pytest.raises(UserError, match=r"other"):
        module.make_apart(module.Asked(product="other", as_of=DAYS[0], unique="backfill"))


def test_night_is_tried_again_as_the_same_run_where_waiting_may_mend_it(monkeypatch, capsys):
    asked = []

    def open_run(product, kind, as_of, unique):
        asked.append((product, kind, as_of, unique))
        raise TransientError("git did not end")

    monkeypatch.setattr(module, "open_run", open_run)
    monkeypatch.setattr(module.make_night.retry, "sleep", lambda seconds: asked.append(seconds))
    with pytest.raises(TransientError, match="git did not end"):
        module.make_night(module.Asked(product="tiny", as_of=DAYS[0], unique="backfill"))
    run = ("tiny", "predict", "2024-02-10", "backfill")
    assert asked == [run, 60, run, 120, run, 240, run]
    assert capsys.readouterr().out.count("this may pass; waiting before another try: git did not end") == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--from", "2013-06-30", "--to", "2013-06-01"],
            "FROM must not be later than TO, got 2013-06-30 and 2013-06-01",
        ),
        (["--from", "", "--to", "2013-06-01"], "FROM must be a date"),
        (["--from", "2013-06-30", "--to", "30 June"], "TO must be a date"),
        (["--from", "2013-06-30", "--to", "2999-01-01"], "as_of must have come, got 2999-01-01"),
    ],
)
def test_range_that_is_none_is_one_message(tmp_path, given, message):
    command = ["python", "-m", "tasks.commands", "backfill", "flight-delays", *given]
    printed = call(command, ROOT, environment(tmp_path), expect=65)
    assert printed.startswith("backfill stopped:\n")
    assert message in printed
    assert not list(tmp_path.iterdir())


def test_missing_night_is_shown_as_such():
    assert stands(DAYS[0], None).cells == ("2024-02-10", "missing", "", "", "")
