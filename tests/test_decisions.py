"""Oracle: the lines as JSON, read by Python itself; the laws that the last word counts and that nothing is lost."""

import json
from datetime import date
from pathlib import Path

import pytest
from builders import declared, mistakes
from conftest import call, environment, make_project

from tasks import params
from tasks.commands.arguments import given_date
from tasks.commands.data import decide
from tasks.rows.decisions import (
    Accepted,
    Correction,
    Refetch,
    accepted_days,
    file_of,
    known_corrections,
    read_decisions,
    refetched_days,
    write_decisions,
)
from tasks.runtime.errors import UserError

DAY, TODAY = date(2024, 1, 2), date(2024, 3, 1)


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny():
    return params.parse(declared()).product("tiny")


def correction(**changes):
    about = {"decided": "2024-03-01", "person": "Ann", "why": "a typing error", "of": "rows", "known": "2024-01-05"}
    return Correction(**{**about, "row": "r1", "cells": {"weight_kg": 9}, **changes})


def test_decision_is_one_line_that_says_what_when_by_whom_and_why():
    printed = decide.accept(tiny(), DAY, " a sale ", "Ann", TODAY)
    assert printed == "2024-01-02 of tiny may pass; read decisions/tiny/dt=2024-01-02.jsonl, commit it and run again"
    decide.refetch(tiny(), DAY, "a truncated file", "Bo é", TODAY)
    assert [json.loads(line) for line in file_of("tiny", DAY).read_text("utf-8").splitlines()] == [
        {"kind": "accepted", "decided": "2024-03-01", "person": "Ann", "why": "a sale"},
        {"kind": "refetch", "decided": "2024-03-01", "person": "Bo é", "why": "a truncated file"},
    ]


def test_of_several_decisions_about_a_day_the_last_counts_and_all_stay():
    for why in ("first", "second"):
        decide.accept(tiny(), DAY, why, "Ann", TODAY)
        decide.refetch(tiny(), DAY, why, "Bob", TODAY)
    assert accepted_days("tiny") == {"2024-01-02": "second (Ann)"}
    assert refetched_days("tiny") == {"2024-01-02": "second (Bob)"}
    assert (accepted_days("other"), refetched_days("other")) == ({}, {})
    assert len(read_decisions(file_of("tiny", DAY))) == 4


def test_every_kind_is_read_back_as_it_was_written():
    written = [
        Accepted(decided="2024-03-01", person="Ann", why="a sale"),
        Refetch(decided="2024-03-01", person="Ann", why="a\u2028line"),
        correction(cells={"depot": None, "weight_kg": 1.5}),
        correction(of="labels", cells={"late": True}),
    ]
    write_decisions(file_of("tiny", DAY), written[::-1])
    assert sorted(map(repr, read_decisions(file_of("tiny", DAY)))) == sorted(map(repr, written))


def test_correction_is_known_from_its_night_on_and_the_newest_cell_counts():
    later = correction(known="2024-01-09", cells={"weight_kg": 8, "depot": "B"})
    write_decisions(file_of("tiny", DAY), [later, correction()])
    assert known_corrections("tiny", date(2024, 1, 4)) == {}
    place = "rows", "2024-01-02"
    assert known_corrections("tiny", date(2024, 1, 5)) == {place: {"r1": {"weight_kg": 9}}}
    assert known_corrections("tiny", date(2024, 1, 9)) == {place: {"r1": {"weight_kg": 8, "depot": "B"}}}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("no JSON", "Expecting value"),
        ("[]", "it must be a JSON object"),
        ('{"kind": "accept"}', "kind must be one of accepted, refetch, anew, correction, got 'accept'"),
        ('{"kind": "accepted", "decided": "2024-03-01", "person": "Ann"}', "see why"),
        ('{"kind": "accepted", "decided": "2024-03-01", "person": "Ann", "why": " "}', "why must be given, got ' '"),
        ('{"kind": "accepted", "decided": "March", "person": "Ann", "why": "x"}', "must be a date written as YYYY"),
        ('{"kind": "accepted", "decided": "2024-03-01", "person": "Ann", "why": "x", "until": 1}', "see until"),
        (
            json.dumps({"kind": "correction", "decided": "2024-03-01", "person": "Ann", "why": "x"}),
            "see cells, known, of",
        ),
        (correction(cells={}).line().replace("{}", "[1]"), "cells single values by column"),
        (correction(cells={}).line().replace('"2024-01-05"', "5"), "row and known must be texts"),
    ],
)
def test_line_that_is_no_decision_stops_every_reader(line, wrong):
    file_of("tiny", DAY).parent.mkdir(parents=True)
    file_of("tiny", DAY).write_text(f"\n{line}\n")
    for read in (
        lambda: accepted_days("tiny"),
        lambda: refetched_days("tiny"),
        lambda: known_corrections("tiny", TODAY),
    ):
        with pytest.raises(UserError, match=rf"dt=2024-01-02.jsonl:2: a line must be a decision .*{wrong}.*mend or"):
            read()


def test_file_that_is_named_after_no_day_is_told():
    decide.accept(tiny(), DAY, "a sale", "Ann", TODAY)
    file_of("tiny", DAY).rename(file_of("tiny", DAY).with_name("dt=2nd.jsonl"))
    with pytest.raises(UserError, match=r"dt=2nd.jsonl: a file must be named like dt=2013-06-30.jsonl"):
        refetched_days("tiny")


@pytest.mark.parametrize("why", ["", "  "])
def test_reason_must_be_given_and_a_date_be_one(why):
    with pytest.raises(UserError, match="REASON must say why"):
        decide.accept(tiny(), DAY, why, "Ann", TODAY)
    with pytest.raises(UserError, match="DT must be a date written as YYYY-MM-DD, got '5 July'; write it like"):
        given_date("5 July", "DT")
    assert not file_of("tiny", DAY).exists()


def test_decisions_of_before_stop_the_run_until_they_are_moved():
    old = {"kind": "rows", "row": "r1", "known": "2024-01-05", "cells": {"weight_kg": 9}}
    file = Path("corrections/tiny/dt=2024-01-02.jsonl")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(old) + "\n")
    entry = {"source": {"retake": {"2024-01-02": "a truncated file (Ann)"}}, "day": {"accepted": {"2024-01-03": "ok"}}}
    Path("params.yaml").write_text(json.dumps({"as_of": "2024-02-10", "products": {"tiny": entry, "other": {}}}))
    with pytest.raises(UserError, match=r"run python -m tasks.commands migrate-decisions"):
        refetched_days("tiny")
    printed = decide.migrate("Bob", TODAY).splitlines()
    assert printed == [
        "3 decisions written to decisions/; read and commit them",
        "delete from params.yaml: products.tiny.day.accepted, products.tiny.source.retake",
    ]
    assert refetched_days("tiny") == {"2024-01-02": "a truncated file (Ann)"}, "the same reason: not fetched once more"
    assert accepted_days("tiny") == {"2024-01-03": "ok (Bob)"}
    assert known_corrections("tiny", TODAY) == {("rows", "2024-01-02"): {"r1": {"weight_kg": 9}}}
    assert not file.exists()
    before = file_of("tiny", DAY).read_bytes()
    decide.migrate("Bob", TODAY)
    assert file_of("tiny", DAY).read_bytes() == before


@pytest.mark.parametrize(("part", "key"), [("drift", "accepted"), ("day", "accepted"), ("source", "retake")])
def test_decision_in_params_is_told_to_move(part, key):
    content = declared()
    entry = content["products"]["tiny"]
    entry[part] = {**entry.pop("drift" if part == "day" else part), key: {"2024-01-02": "a sale (Ann)"}}
    (line,) = mistakes(content)
    assert line == (
        f"products.tiny.{part.replace('day', 'drift')}.{key} {'(or day.accepted) ' * (key == 'accepted')}"
        "must have moved to decisions/, and has not; "
        "run python -m tasks.commands migrate-decisions, then delete it"
    )


def test_commands_write_decisions_as_the_person_git_knows(tmp_path):
    project, make = make_project(tmp_path / "project"), ["python", "-m", "tasks.commands"]
    env = environment(tmp_path / "home")
    assert "may pass" in call([*make, "accept", "tiny", "2024-02-09", "a sale"], project, env)
    assert "fetched anew" in call([*make, "refetch", "tiny", "2024-02-09", "cut off"], project, env)
    lines = (project / "decisions/tiny/dt=2024-02-09.jsonl").read_text().splitlines()
    assert [json.loads(line)["person"] for line in lines] == ["Test", "Test"]
    assert "REASON must say why" in call([*make, "accept", "tiny", "2024-02-09", ""], project, env, expect=65)
    assert "must hold what validate quarantined" in call([*make, "quarantine", "tiny"], project, env, expect=65)
    assert "has none; choose" not in call([*make, "requeue", "tiny", "2024-02-09"], project, env, expect=65)
