"""Oracle: a simulation in one go beside one that is killed on the way; the source behind a fault; figures by hand."""

import json
import sys
from dataclasses import replace
from datetime import date, timedelta
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from builders import TINY, a_product
from conftest import call, environment, make_project, parcels
from matplotlib import pyplot

from tasks import params
from tasks.commands.simulation import policies
from tasks.commands.simulation.contracts import Fault, Outcome, Plan, Replay
from tasks.commands.simulation.feed import with_fault
from tasks.commands.simulation.home import Home, fault_of
from tasks.commands.simulation.picture import draw, draw_champions
from tasks.commands.simulation.replay import steps_left
from tasks.commands.simulation.schedule import steps_of
from tasks.commands.simulation.simulate import alone, draw_again
from tasks.commands.simulation.summary import summary
from tasks.runs.locks import locked
from tasks.runtime.errors import UserError

FIRST, LAST = date(2024, 2, 9), date(2024, 2, 11)
NIGHTS = [FIRST + timedelta(days=i) for i in range(3)]
FAULTY = Fault(kind="feed", first=date(2024, 2, 9), last=date(2024, 2, 10))


def source_on(as_of: date, product) -> pd.DataFrame:
    """What the source of the parcels has on a date: rows of the scored day, and labels of all."""
    rows = parcels()
    return rows[rows["day"] <= product.scored_day(as_of).isoformat()].reset_index(drop=True)


def faulty(kind: str, as_of: date, **changes) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a date without and with a fault of the ninth and tenth of February."""
    product = a_product()
    rows = source_on(as_of, product)
    fault = replace(FAULTY, kind=kind, column="weight_kg" if kind == "shift" else None, **changes)
    return rows, with_fault(rows, product, fault, as_of)


def test_steps_are_those_that_the_schedules_ask_for_in_their_order():
    product = a_product(schedule={"retrain": "0 3 * * 0", "predict": "0 2 * * *"})
    steps = [(each.kind, each.as_of) for each in steps_of(product, FIRST, LAST)]
    nights = [("night", day) for day in NIGHTS]
    # The tenth is a Saturday: its night is made on Sunday at two, and the retrain of the same as_of is at three.
    assert steps == [("retrain", date(2024, 2, 3)), *nights[:2], ("retrain", date(2024, 2, 10)), *nights[2:]]


def test_schedule_in_a_time_zone_with_a_lost_hour_makes_each_night_once():
    product = a_product(time_zone="Europe/Berlin", schedule={"retrain": "0 3 1 * *", "predict": "30 2 * * *"})
    steps = steps_of(product, date(2024, 3, 28), date(2024, 4, 2))
    nights = [each.as_of for each in steps if each.kind == "night"]
    assert nights == [date(2024, 3, 28) + timedelta(days=i) for i in range(6)]


def test_broken_feed_delivers_nothing_new_and_then_all_of_it():
    rows, broken = faulty("feed", date(2024, 2, 10))
    assert broken["day"].max() == "2024-02-09"
    assert len(rows) - len(broken) == 40
    pd.testing.assert_frame_equal(*faulty("feed", date(2024, 2, 11)))
    pd.testing.assert_frame_equal(*faulty("feed", date(2024, 2, 8)))


def test_stopped_labels_are_those_that_would_become_known_meanwhile():
    _, without = faulty("labels", date(2024, 2, 10))
    assert without[without["late"].notna()]["day"].max() == "2024-02-07"
    assert len(without) == len(source_on(date(2024, 2, 10), a_product()))


def test_poison_reaches_what_is_learnt_and_not_what_judges():
    rows, poisoned = faulty("poison", date(2024, 2, 10))
    differs = rows["late"].to_numpy() != poisoned["late"].to_numpy()
    judged = rows["day"] > "2024-02-02"  # labels of the ninth are the newest, and seven days are held out
    assert differs[~judged].mean() > 0.3
    assert not differs[judged].any()
    by_day = [each.groupby("day")["late"].sum().tolist() for each in (rows, poisoned)]
    assert by_day[0] == by_day[1], "a day keeps its share of late parcels"


def test_shift_changes_the_unit_of_one_column_of_new_rows():
    rows, shifted = faulty("shift", date(2024, 2, 10))
    ratio = pd.to_numeric(shifted["weight_kg"], errors="coerce") / pd.to_numeric(rows["weight_kg"], errors="coerce")
    new = rows["day"] >= "2024-02-10"
    assert np.allclose(ratio[new].dropna(), 1.609344)
    assert np.allclose(ratio[~new].dropna(), 1)


def test_source_that_ends_has_nothing_that_becomes_known_later():
    _, cut = faulty("cut", date(2024, 2, 13))
    assert cut["day"].max() == "2024-02-11"  # the last night scores the day after its as_of
    assert cut[cut["late"].notna()]["day"].max() == "2024-02-09"


def test_fault_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="COLUMN must be a number"):
        fault_of(a_product(), "shift", FIRST, LAST, "depot")
    with pytest.raises(UserError, match="needs a training"):
        fault_of(a_product(), "poison", date(2024, 2, 4), date(2024, 2, 8))


def test_journal_whose_last_line_was_cut_off_ends_with_the_line_before(tmp_path):
    home = Home(folder=tmp_path)
    outcomes = [Outcome(kind="night", as_of=day, state="published", seconds=1) for day in NIGHTS]
    for each in outcomes[:2]:
        home.add(each)
    with home.journal.open("a") as file:
        file.write('{"kind": "night", "as_')
    assert home.outcomes() == outcomes[:2]
    home.add(outcomes[2])
    assert home.outcomes() == outcomes[:3]


def a_replay() -> Replay:
    """Three weeks: the second model is promoted and better, the third refused and worse; then a rollback."""
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(21)]
    trained, outcomes = [days[0], days[6], days[13]], []
    for i, day in enumerate(days):
        if i == 0:
            outcomes.append(retrained(day, "promoted", "v1.0.0"))
        state, champion = ("stopped" if i == 3 else "published"), "v2.0.0" if 7 <= i < 19 else "v1.0.0"
        outcomes.append(Outcome(kind="night", as_of=day, state=state, seconds=8, champion=champion, rows=10))
        if i == 6:
            outcomes.append(retrained(day, "promoted", "v2.0.0"))
        if i == 13:
            outcomes.append(retrained(day, "rejected", "v2.0.0"))
    noise = np.random.default_rng(0).normal(0, 0.01, len(days)).round(6)
    worth = dict(zip(trained, (0.70, 0.72, 0.69), strict=True))
    own = np.random.default_rng(1).normal(0, 0.001, (len(days), 3))
    models = {
        each.isoformat(): {day.isoformat(): value + noise[i] + own[i, k] for i, day in enumerate(days) if day >= each}
        for k, (each, value) in enumerate(worth.items())
    }
    published = {
        day.isoformat(): models[str(trained[1] if 7 <= i < 19 else trained[0])][str(day)]
        for i, day in enumerate(days)
        if i != 3
    }
    plan = Plan(product="tiny", first=days[0], last=days[-1], revision="0" * 40, steps=())
    return Replay(
        plan=plan,
        metric="auc",
        lower_is_better=False,
        outcomes=tuple(outcomes),
        published=published,
        models=models,
        baselines={name: dict.fromkeys(known, 0.6) for name, known in models.items()},
    )


def retrained(day: date, state: str, champion: str) -> Outcome:
    reason = "not promoted (auc: ...): gates.max_behind_champion wants a lead" if state == "rejected" else "passed"
    return Outcome(
        kind="retrain", as_of=day, state=state, seconds=60, reason=reason, commit=f"c{day}", champion=champion
    )


def test_policies_are_compared_on_the_nights_that_were_published():
    replay = a_replay()
    series = policies.series_of(replay)
    assert {len(each) for each in series.values()} == {20}
    assert series[policies.NEWEST]["2024-01-07"] == replay.models["2024-01-01"]["2024-01-07"], (
        "trained after that night"
    )
    assert series[policies.NEWEST]["2024-01-08"] == replay.models["2024-01-07"]["2024-01-08"]
    found = policies.judged(replay)
    assert [(each.outcome.state, each.lead.n_blocks) for each in found] == [("promoted", 14), ("rejected", 7)]
    assert found[0].lead.low > 0.01
    assert found[1].lead.high < -0.02
    assert [each.as_of.day for each in policies.rollbacks(replay)] == [20]
    assert [each.as_of.day for each in policies.false_alarms(replay)] == [4]
    text = summary(replay)
    for part in ("21, of which 20 published and 1 stopped", "3: 2 promoted, 1 refused", "rollbacks           1"):
        assert part in text
    assert "surely wrong in hindsight (interval on the other side of 0): 0 of 2" in text


def test_night_that_finds_decay_is_followed_by_a_training_of_its_as_of():
    plan = Plan(product="tiny", first=FIRST, last=LAST, revision="", steps=steps_of(a_product(), FIRST, LAST))
    done = [Outcome(kind=each.kind, as_of=each.as_of, state="published", seconds=1) for each in plan.steps[:2]]
    assert steps_left(plan, done) == [*plan.steps[2:]]
    done[1] = replace(done[1], decay="worse than in its first nights")
    assert [(each.kind, each.as_of) for each in steps_left(plan, done)][:2] == [
        ("retrain", FIRST),
        ("night", NIGHTS[1]),
    ]
    done.append(Outcome(kind="retrain", as_of=FIRST, state="rejected", seconds=1))
    assert steps_left(plan, done) == [*plan.steps[2:]]


def test_lead_of_an_error_is_its_fall():
    nights = {"a": 1.0, "b": 2.0, "c": 1.5}
    worse = {night: value + 0.5 for night, value in nights.items()}
    assert policies.lead(nights, worse, lower_is_better=True).value == pytest.approx(0.5)


def test_picture_is_the_same_whenever_it_is_drawn(tmp_path):
    replay = Replay.from_json(json.dumps(a_replay().to_json()))
    one, other = (draw(replay, tmp_path / name) for name in ("one", "other"))
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size < 150_000
    assert "never retrained" in one[0].read_text()


def test_labels_of_refusals_lie_apart_however_often_the_gates_refuse():
    replay, every = a_replay(), [date(2024, 1, 1) + timedelta(days=4 * i) for i in range(1, 6)]
    reason = "not promoted (auc: ...): gates.max_behind_champion wants a lead; gates.calibration wants less"
    refused = [replace(retrained(day, "rejected", "v1.0.0"), reason=reason) for day in every]
    plan = replace(replay.plan, last=date(2024, 3, 1))
    figure, axes = pyplot.subplots(figsize=(10, 2))
    draw_champions(axes, replace(replay, plan=plan, outcomes=(replay.outcomes[0], *refused)))
    axes.set_xlim(np.datetime64("2024-01-01"), np.datetime64("2024-03-01"))
    figure.canvas.draw()
    labels = [each.get_window_extent() for each in axes.texts]
    assert len(labels) == 5
    assert not [1 for one, other in combinations(labels, 2) if one.overlaps(other)]
    pyplot.close(figure)


def simulated(project, env, *options: str, expect: int = 0) -> str:
    """What `make simulate` prints of the last night, for which a model is trained."""
    ask = ["simulate", "tiny", "--from", LAST.isoformat(), "--to", LAST.isoformat(), *options]
    return call([sys.executable, "-m", "tasks.commands", *ask], project, env, expect)


@pytest.fixture(scope="module")
def simulation(tmp_path_factory, s3):
    """A simulation that was killed when its model was promoted, which no line told yet, and then went on."""
    unpretrained = TINY.replace("init: pretrain", "init: scratch")
    project = make_project(tmp_path_factory.mktemp("simulation") / "project", unpretrained)
    env = environment(project / ".lamplighter", **s3)
    simulated(project, env | {"LAMPLIGHTER_CRASH_AT": "simulate: the retrain of 2024-02-10 is done"}, expect=-9)
    home = Home(folder=next((project / ".lamplighter" / "simulations").iterdir()))
    done = home.outcomes()
    printed = simulated(project, env, "--leaks", "1", "--save", "quarter")
    return SimpleNamespace(project=project, env=env, printed=printed, home=home, done=done)


@pytest.mark.long
def test_simulation_that_was_killed_goes_on_with_the_step_it_was_at(simulation):
    outcomes = simulation.home.outcomes()
    assert simulation.done == []
    steps = [(each.kind, each.as_of, each.state) for each in outcomes]
    assert steps == [("retrain", date(2024, 2, 10), "promoted"), ("night", LAST, "published")]
    assert [each.champion for each in outcomes] == ["v1.0.0"] * 2, "its model has one version, not one for each try"


@pytest.mark.long
def test_night_made_again_from_a_source_that_ends_there_has_equal_bytes(simulation):
    assert "no leak: 1 random nights, 20 rows" in simulation.printed


@pytest.mark.long
def test_published_champion_is_measured_as_the_model_that_it_is(simulation):
    """Two ways to one figure: the parts that were published, and the exported file on the rows of the day."""
    found = Replay.from_json((simulation.project / "quarter.json").read_bytes())
    series = policies.series_of(found)
    assert len(series[policies.CHAMPION]) == 1
    assert series[policies.CHAMPION] == pytest.approx(series[policies.NEWEST], abs=2e-6)
    assert draw_again(simulation.project / "quarter.json").split("picture:")[0].strip() in simulation.printed


@pytest.mark.long
def test_simulation_leaves_the_real_product_as_it_was(simulation):
    """No tag, no experiment, no commit of the origin, and the nights are under another address."""
    listed = call(["git", "for-each-ref", "--format=%(refname)"], simulation.project, simulation.env)
    assert listed.split() == ["refs/heads/main"]
    text = (simulation.home.repository / "params.yaml").read_text()
    assert params.loads(text).product("tiny").publish.url == "s3://lamplighter/simulations/tiny-20240211-20240211"


@pytest.mark.long
def test_second_process_in_a_simulation_is_sent_away(simulation):
    with (
        locked(simulation.home.folder / "lock"),
        pytest.raises(UserError, match="must have one process at work"),
        alone(simulation.home),
    ):
        pytest.fail("two are at work")
