"""Oracle: git's own list of tags, on a real repository with GTO; its own commands, as docs/operations.md gives them."""

import dataclasses
import re
import shlex
import uuid
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from builders import a_product, a_repository
from gto.cli import app as gto_program
from test_publish import make_night, tiny, url  # noqa: F401 (url is a fixture)

import tasks.promote as door
from model.evaluation.paired import Difference
from tasks.commands.models import versions as commands
from tasks.monitoring.messages.contracts import Outgoing
from tasks.monitoring.status import read_status
from tasks.publication.manifests import read_checked
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.runs.experiments import Run, experiments
from tasks.runs.gates.comparison import Comparison
from tasks.runs.gates.verdict import Verdict
from tasks.runs.registry import champions, versions
from tasks.runs.registry.tags import Champion
from tasks.runtime import git
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings

DAY, LATER = date(2024, 2, 10), date(2024, 2, 20)
GRACE = ("Grace", "grace@localhost")


def experiment(origin, as_of, content):
    """A commit of the origin that says, as a training does, up to when it has learnt and which model it has made."""
    (origin / "params.yaml").write_text(f'as_of: "{as_of}"\n')
    out = {"path": "data/models/tiny/onnx", "md5": f"{content}.dir"}
    (origin / "dvc.lock").write_text(yaml.safe_dump({"stages": {"export@tiny": {"outs": [out]}}}))
    git.git("add", "--all", cwd=origin)
    git.git("commit", "--quiet", "--allow-empty", "-m", f"experiment {content} of {as_of}", cwd=origin)
    git.git("fetch", "--quiet", str(origin), "HEAD")
    return git.git("rev-parse", "HEAD", cwd=origin).strip()


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """An origin, whose clone is the working directory."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for each in (origin, clone):
        a_repository(each, message=None)
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    monkeypatch.chdir(clone)
    return origin


@pytest.fixture
def commits(origin):
    """Three commits of experiments in an origin, whose clone is the working directory."""
    return [experiment(origin, DAY, f"model{i}") for i in range(3)]


def promote(commit, over, why="approved by the gates", as_of=DAY):
    return champions.promote("tiny", commit, as_of, over, why)


def by_hand(command):
    """A command that a person types in a clone of the origin, which has its tags."""
    program, *arguments = shlex.split(command)
    git.git("fetch", "--quiet", "--tags", "--force", settings().origin)
    assert program == "gto"
    gto_program(arguments, standalone_mode=False)
    git.git("push", "--quiet", "--tags", settings().origin)


def test_champion_is_the_newest_assignment_and_its_tag_says_why(commits, tmp_path):
    assert champions.champion("tiny") is None
    first = promote(commits[0], None)
    assert first == champions.champion("tiny") == Champion(version="v1.0.0", commit=commits[0], as_of=str(DAY))
    second = promote(commits[1], first, "approved by Grace")
    assert second == champions.champion("tiny") == Champion(version="v2.0.0", commit=commits[1], as_of=str(DAY))
    assert promote(commits[1], None, "again") == second, "a retry finds it done"
    with pytest.raises(
        TransientError, match=r"v2.0.0 has become the champion while this one was judged against another"
    ):
        promote(commits[2], first, "judged against what was the champion before")
    assert champions.champion("tiny") == second
    approval = champions.approval(tmp_path / "origin", "tiny", commits[1])
    assert approval.endswith(": approved by Grace (tag tiny#prod#2)")
    assert champions.approval(tmp_path / "origin", "tiny", commits[2]) == "no tag of the origin"


def test_rollback_by_hand_is_understood_and_may_itself_be_undone(commits):
    first = promote(commits[0], None)
    second = promote(commits[1], first)
    by_hand("gto assign tiny --version v1.0.0 --stage prod --force")
    assert champions.champion("tiny") == first
    with pytest.raises(TransientError, match="a person has decided about a version"):
        promote(commits[1], first)
    by_hand("gto assign tiny --version v2.0.0 --stage prod --force")
    assert promote(commits[1], second) == second == champions.champion("tiny")


def test_withdrawn_model_predicts_no_longer(commits):
    first = promote(commits[0], None)
    promote(commits[1], first)
    by_hand("gto deprecate tiny v2.0.0 prod")
    assert champions.champion("tiny") == first
    by_hand("gto deprecate tiny v1.0.0 prod")
    assert champions.champion("tiny") is None


def test_version_is_a_new_one_whatever_was_registered_or_deleted_by_hand(commits):
    by_hand(f"gto register tiny {commits[2]} --version v3.0.0")
    first = promote(commits[0], None)
    assert first == champions.champion("tiny") == Champion(version="v4.0.0", commit=commits[0], as_of=str(DAY))
    git.git("tag", "--delete", "tiny@v3.0.0", cwd=Path(settings().origin))
    assert promote(commits[1], first).version == "v5.0.0"


def test_tags_of_a_try_that_was_killed_stop_no_further_one(commits):
    git.git("tag", "-a", "tiny@v1.0.0", "-m", "of the killed try", commits[2])
    git.git("tag", "-a", "tiny#prod#1", "-m", "of the killed try", commits[2])
    assert promote(commits[0], None) == champions.champion("tiny")
    assert champions.champion("tiny").commit == commits[0]


def test_assignment_whose_version_is_missing_is_told(commits):
    promote(commits[0], None)
    git.git("tag", "--delete", "tiny@v1.0.0", cwd=Path(settings().origin))
    with pytest.raises(UserError, match=r"must have a tag tiny@v\.\.\., and has none in the origin; push that tag too"):
        champions.champion("tiny")


def test_past_night_has_its_champion_and_an_old_model_replaces_no_later_one(origin):
    later, then = experiment(origin, LATER, "later"), experiment(origin, DAY, "then")
    champion = promote(later, None, as_of=LATER).version
    assert champions.champion("tiny", trained_until=DAY) is None
    of_then = promote(then, champions.champion("tiny"), as_of=DAY)
    assert promote(then, None, as_of=DAY).version == of_then.version, "a retry finds it done"
    versions = {day: champions.champion("tiny", trained_until=day).version for day in (DAY, LATER)}
    assert versions == {DAY: of_then.version, LATER: champion}
    assert champions.champion("tiny").version == champion


def test_clone_without_experiments_knows_how_far_a_champion_has_learnt(origin, tmp_path, monkeypatch):
    """As an origin that is a plain clone: it has the tags and their commits, and no experiments at all."""
    promote(experiment(origin, DAY, "then"), None)
    promote(experiment(origin, LATER, "later"), champions.champion("tiny"), as_of=LATER)
    git.git("clone", "--quiet", str(origin), str(tmp_path / "plain"))
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(tmp_path / "plain"))
    assert experiments("tiny") == []
    versions = {day: champions.champion("tiny", trained_until=day).version for day in (DAY, LATER)}
    assert versions == {DAY: "v1.0.0", LATER: "v2.0.0"}
    assert champions.champion("tiny", trained_until=DAY - timedelta(days=1)) is None


def test_model_whose_commit_says_no_date_scores_no_night(origin):
    promote(experiment(origin, DAY, "model"), None)
    (origin / "params.yaml").write_text("products: {}\n")
    git.git("commit", "--quiet", "--all", "-m", "says nothing", cwd=origin)
    says_nothing = git.git("rev-parse", "HEAD", cwd=origin).strip()
    git.git("fetch", "--quiet", str(origin), "HEAD")
    by_hand(f"gto register tiny {says_nothing} --version v9.0.0")
    by_hand("gto assign tiny --version v9.0.0 --stage prod")
    with pytest.raises(UserError, match=r"tagged as v9.0.0, must say the as_of .*and does not; ban that version"):
        champions.champion("tiny", trained_until=DAY)


@pytest.mark.parametrize(
    "command", ["gto assign tiny --version v1.0.0 --stage prod --force", "gto deprecate tiny v2.0.0 prod"]
)
def test_what_was_withdrawn_stays_out_by_its_content_until_it_is_let_in(origin, command):
    first = promote(experiment(origin, DAY, "good"), None)
    bad = experiment(origin, DAY, "bad")
    promote(bad, first)
    by_hand(command)
    assert champions.champion("tiny") == first
    copy = experiment(origin, LATER, "bad")  # of another date and commit, and the same bytes
    for commit in (bad, copy):
        admission = champions.admission("tiny", commit, LATER)
        assert re.fullmatch(
            r"it is the model of v2.0.0, which was withdrawn on 20\d\d-\d\d-\d\d by Test: \S.*; make release "
            r"PRODUCT=tiny VERSION=v2.0.0 REASON=... lets it pass .* make rollback PRODUCT=tiny TO=v2.0.0 .* at once",
            admission.exclusion,
        )
    assert champions.admission("tiny", experiment(origin, LATER, "new"), LATER).exclusion == ""
    assert versions.release("tiny", "v2.0.0", "it was right", GRACE) == "withdrawn"
    assert champions.champion("tiny") == first
    assert promote(copy, first, as_of=LATER).version == "v3.0.0"


def test_promote_says_of_a_model_that_a_person_keeps_it_out(origin, monkeypatch, s3_here):
    first = promote(experiment(origin, DAY, "good"), None)
    bad, better = experiment(origin, DAY, "bad"), experiment(origin, DAY, "better")
    promote(bad, first)
    versions.roll_back("tiny", "v1.0.0", "late on holidays", GRACE)
    versions.hold("tiny", "v1.0.0", "audit", GRACE)
    # By no path is the withdrawn model measured; the other is, and passes.
    lead = Difference(value=0.2, low=0.1, high=0.3, n_blocks=7)
    comparison = Comparison(
        metric="auc", challenger=0.9, baseline=0.6, champion=0.7, about_champion="v1.0.0 0.7000", lead=lead
    )
    monkeypatch.setattr(
        door, "compare", lambda product, as_of, commit, champion: comparison if commit == better else 1 / 0
    )
    metrics = {"model": {"auc": 0.9}, "baseline": {"auc": 0.6}}
    write_json(Paths("tiny").report("metrics.json"), metrics)
    write_json(Paths("tiny").report("evaluation.json"), {**metrics, "rows_test": 40})
    run = Run(name="x", product="tiny", as_of=str(DAY), revision="x", shards=1, approver="whoever typed make run")
    product = a_product(publish={"url": f"s3://lamplighter/registry-{uuid.uuid4().hex}"})
    verdicts = [door.promote(product, DAY, dataclasses.replace(run, commit=commit)) for commit in (bad, better)]
    assert [each.decision for each in verdicts] == ["withdrawn", "held"]
    assert "not promoted: it is the model of v2.0.0, which was withdrawn on" in verdicts[0].line
    assert "by Grace: rolled back to v1.0.0: late on holidays; make release" in verdicts[0].line
    assert "passes the gates, and is not promoted: v1.0.0 is held" in verdicts[1].line
    kept = [Verdict.from_json(each.to_json()).figures for each in verdicts]
    assert [each.metrics for each in kept] == [metrics, metrics]
    assert (kept[1].rows, kept[1].value) == (40, 0.9)
    shown = read_status(Store(product.publish.url), "tiny").trainings
    assert [(each.verdict.decision, each.verdict.line) for each in shown] == [("held", verdicts[1].line)]  # of one run
    assert [gate.name for gate in shown[0].verdict.gates] == [gate.name for gate in verdicts[1].gates]
    assert (shown[0].metric, shown[0].value, shown[0].baseline) == ("auc", 0.9, 0.6)
    assert champions.champion("tiny") == first


def test_approval_of_other_figures_promotes_nothing(url, origin, monkeypatch):  # noqa: F811
    commit = experiment(origin, DAY, "asks")
    metrics = {"model": {"auc": 0.9}, "baseline": {"auc": 0.6}}
    write_json(Paths("tiny").report("metrics.json"), metrics)
    write_json(Paths("tiny").report("evaluation.json"), metrics)
    comparison = Comparison(metric="auc", challenger=0.9, baseline=0.6)
    monkeypatch.setattr(door, "compare", lambda *asked: comparison)
    product = a_product(gates__approval="human", publish={"url": url})
    run = Run(name="x", product="tiny", as_of=str(DAY), revision="x", shards=1, commit=commit)
    asked = door.promote(product, DAY, run)
    assert asked.decision == "needs approval"
    shown = asked.figures.called
    assert f"These figures are called {shown}." in asked.page
    write_json(Paths("tiny").report("metrics.json"), {**metrics, "model": {"auc": 0.8}})
    answered = dataclasses.replace(run, approver="Grace", approved=shown)
    now = door.promote(product, DAY, run).figures.called
    assert now != shown
    with pytest.raises(UserError, match=rf"that Grace approves must be those of this run, {now}, and are {shown}: .*"):
        door.promote(product, DAY, answered)
    with pytest.raises(UserError, match=r"and are not named: "):
        door.promote(product, DAY, dataclasses.replace(answered, approved="not named"))
    assert champions.champion("tiny") is None
    write_json(Paths("tiny").report("metrics.json"), metrics)
    promoted = door.promote(product, DAY, answered)
    assert (promoted.decision, promoted.figures.called) == ("promoted", shown)
    assert "approved by Grace and the gates" in champions.approval(origin, "tiny", commit)


def test_all_that_stood_above_the_version_rolled_back_to_is_withdrawn(origin):
    first = promote(experiment(origin, DAY, "one"), None)
    second = promote(experiment(origin, DAY, "two"), first)
    third = promote(experiment(origin, LATER, "three"), second, as_of=LATER)
    assert versions.roll_back("tiny", "v1.0.0", "late on\nholidays", GRACE) == (third, first)
    assert versions.roll_back("tiny", "v1.0.0", "late on\nholidays", GRACE) == (third, first), "at another try"
    assert champions.champion("tiny") == first
    for content in ("two", "three"):
        assert "withdrawn" in champions.admission("tiny", experiment(origin, LATER, content), LATER).exclusion
    approval = champions.approval(origin, "tiny", first.commit)
    assert "Grace" in approval
    assert approval.count("late on holidays") == 1
    with pytest.raises(UserError, match=r"v1\.0\.0 is the champion already"):
        versions.roll_back("tiny", "v1.0.0", "the rain", GRACE)
    assert versions.roll_back("tiny", "v3.0.0", "it was the data", GRACE) == (first, third), "and forward again"
    assert champions.champion("tiny") == third


def test_model_of_an_earlier_date_withdraws_nothing_when_the_champion_goes_on(origin):
    later = promote(experiment(origin, LATER, "later"), None, as_of=LATER)
    then = promote(experiment(origin, DAY, "then"), later)
    assert champions.champion("tiny") == later
    assert champions.champion("tiny", trained_until=DAY) == then
    assert champions.admission("tiny", then.commit, DAY).exclusion == ""


def test_held_version_stays_the_champion_until_it_is_released(origin):
    first = promote(experiment(origin, DAY, "one"), None)
    assert versions.hold("tiny", None, "audit", GRACE) == first
    better = experiment(origin, LATER, "two")
    assert re.fullmatch(
        r"v1.0.0 is held on .* by Grace: audit; make release PRODUCT=tiny VERSION=v1.0.0 REASON=... ends that",
        champions.admission("tiny", better, LATER).hold,
    )
    with pytest.raises(TransientError, match="a person has decided"):
        promote(better, first, as_of=LATER)
    # A promotion that had looked before the hold was pushed, and by hand: the hold stands.
    by_hand(f"gto register tiny {better} --version v2.0.0")
    by_hand("gto assign tiny --version v2.0.0 --stage prod")
    assert champions.champion("tiny") == first
    for act in (
        lambda: versions.hold("tiny", None, "x", GRACE),
        lambda: versions.roll_back("tiny", "v2.0.0", "x", GRACE),
    ):
        with pytest.raises(UserError, match=r"v1.0.0 is held .*; make release PRODUCT=tiny VERSION=v1.0.0"):
            act()
    assert versions.release("tiny", "v1.0.0", "audit is over", GRACE) == "held"
    assert champions.champion("tiny").version == "v2.0.0"


def test_banned_model_never_predicts_again_under_any_version(origin):
    first = promote(experiment(origin, DAY, "one"), None)
    second = promote(experiment(origin, DAY, "leaky"), first)
    assert versions.ban("tiny", "v2.0.0", "leaked rows", GRACE) == (second, first)
    assert champions.champion("tiny") == first
    champions.check_not_banned("tiny", first.commit)
    with pytest.raises(UserError, match=r"the model of a night must not be banned, and .*v2.0.0.*start a new run"):
        champions.check_not_banned("tiny", second.commit)
    copy = experiment(origin, LATER, "leaky")
    assert "was banned on" in champions.admission("tiny", copy, LATER).exclusion
    by_hand(f"gto register tiny {copy} --version v3.0.0")
    by_hand("gto assign tiny --version v3.0.0 --stage prod")
    assert champions.champion("tiny") == first
    for refused in ("v2.0.0", "v3.0.0"):
        with pytest.raises(UserError, match=rf"{refused} must not be banned; .*VERSION=v2.0.0 REASON=... lifts that"):
            versions.roll_back("tiny", refused, "x", GRACE)
    with pytest.raises(UserError, match=r"v2.0.0 is banned already"):
        versions.ban("tiny", "v2.0.0", "x", GRACE)
    assert versions.release("tiny", "v2.0.0", "they were not", GRACE) == "banned"
    assert champions.champion("tiny").version == "v3.0.0"


def test_deprecated_model_predicts_until_another_takes_its_place(commits):
    first = promote(commits[0], None)
    for _ in range(2):
        assert versions.deprecate("tiny", ["model0.dir"], "rows were erased", GRACE) == ["v1.0.0"]
    tags = git.git("ls-remote", settings().origin, "refs/tags/tiny#deprecated*").splitlines()
    assert len([tag for tag in tags if not tag.endswith("^{}")]) == 1, "it is marked once"
    assert champions.champion("tiny") == first
    admission = champions.admission("tiny", commits[1], DAY)
    assert (admission.champion, admission.of_its_time) == (first, None), "nobody need be better than it"
    second = promote(commits[1], first)
    assert champions.champion("tiny") == second
    assert champions.admission("tiny", commits[2], DAY).of_its_time == second


def test_version_that_gto_took_back_for_good_is_banned(origin):
    first = promote(experiment(origin, DAY, "one"), None)
    promote(experiment(origin, DAY, "two"), first)
    by_hand("gto deprecate tiny v2.0.0")
    assert champions.champion("tiny") == first
    with pytest.raises(UserError, match=r"delete the tag tiny@v2.0.0! from the origin to undo that"):
        versions.release("tiny", "v2.0.0", "x", GRACE)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (
            lambda: versions.roll_back("tiny", "v7.0.0", "x", GRACE),
            "VERSION must be .*got 'v7.0.0'; the newest are v1.0.0",
        ),
        (lambda: versions.roll_back("tiny", "v1.0.0", "x", GRACE), "v1.0.0 is the champion already"),
        (lambda: versions.release("tiny", "v1.0.0", "x", GRACE), "must be held, banned or withdrawn to be released"),
        (lambda: versions.hold("other", None, "x", GRACE), "a champion must be there to be held, and none is"),
    ],
)
def test_decision_about_a_version_that_cannot_be_is_refused_and_leaves_no_tag(origin, act, match):
    promote(experiment(origin, DAY, "one"), None)
    before = git.git("tag", "--list", cwd=origin)
    with pytest.raises(UserError, match=match):
        act()
    assert git.git("tag", "--list", cwd=origin) == before


def test_a_person_is_told_which_model_predicts_and_who_let_it(url, origin):  # noqa: F811
    product, told = tiny(url), commands.champion_on
    with pytest.raises(UserError, match="a model must have been promoted, and none has"):
        told(product, None)
    first = promote(experiment(origin, DAY, "one"), None, "approved by Ada and the gates: auc 0.8")
    promote(experiment(origin, LATER, "two"), first, as_of=LATER)
    assert told(product, None).startswith(f"champion            v2.0.0, which knows what was known on {LATER} (commit ")
    with pytest.raises(UserError, match="that knows nothing later than 2024-02-09 must have been promoted"):
        told(product, DAY - timedelta(days=1))
    then = told(product, DAY).splitlines()
    assert then[0].startswith("champion            v1.0.0, which")
    assert "approved by Ada and the gates: auc 0.8" in then[1]
    assert then[2] == "night of 2024-02-10 none yet"
    git.git("commit", "--quiet", "--allow-empty", "-m", "The code that publishes")
    publish(make_night(url, DAY)[0], DAY)
    address = f"{url}/tiny/dt=2024-02-10/_manifest.json"
    assert (
        told(product, DAY).splitlines()[2] == f"night of 2024-02-10 published by a model without a version ({address})"
    )


def test_page_shows_versions_as_people_have_left_them(url, origin):  # noqa: F811
    first = promote(experiment(origin, DAY, "one"), None, "approved by Ada")
    promote(experiment(origin, LATER, "two"), first, as_of=LATER)
    product = tiny(url)

    def shown():
        champions.mirror(product)
        status = read_status(Store(url), "tiny")
        return {each.version: each.state for each in status.versions}, status.held

    assert shown() == ({"v1.0.0": "earlier champion", "v2.0.0": "champion"}, "")
    versions.roll_back("tiny", "v1.0.0", "late on holidays", GRACE)
    versions.hold("tiny", None, "audit", GRACE)
    states, held = shown()
    assert states == {"v1.0.0": "champion", "v2.0.0": "withdrawn"}
    assert held.startswith("v1.0.0 is held on")
    versions.ban("tiny", "v2.0.0", "leaked rows", GRACE)
    assert shown()[0] == {"v1.0.0": "champion", "v2.0.0": "banned"}
    version = read_status(Store(url), "tiny").versions[1]
    assert (version.person, version.reason, version.trained_until) == ("Grace", "leaked rows", LATER)


def test_rollback_leaves_a_message_with_its_reason_and_figures(url, origin, monkeypatch):  # noqa: F811
    monkeypatch.setattr(commands, "enter_with_store", dict)  # the store of the tests is there
    product = tiny(url)
    first = promote(experiment(origin, DAY, "one"), None, "approved by the gates: auc 0.8")
    promote(experiment(origin, LATER, "two"), first, as_of=LATER)
    line = commands.roll_back(product, "v1.0.0", "late on holidays")
    assert "note:" not in line
    store = Store(url)
    [kept] = [read_checked(store, key, Outgoing)[0] for key in store.list("tiny/_messages/")]
    assert kept.message.kind == "champion-changed"
    assert kept.message.text.startswith(line)
    assert "late on holidays" in kept.message.text
    assert "approved by the gates: auc 0.8" in kept.message.text
    assert kept.deliveries == {}, "whoever watches sends it"
