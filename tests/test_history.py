"""Oracle: git's references and a real S3 server's nights: the past that they show is carried on, or asked for."""

import re
import uuid
from datetime import date, timedelta

import pytest
import yaml
from builders import TINY, a_product, a_repository
from test_publish import make_night

from tasks.commands.data import decide
from tasks.publish import publish
from tasks.runs.experiments import Run
from tasks.runs.history import newest_run_before
from tasks.runs.registry import champions
from tasks.runtime import git
from tasks.runtime.errors import UserError

DAY = date(2024, 2, 10)
BEFORE = DAY - timedelta(days=1)


@pytest.fixture
def origin(s3_here, tmp_path, monkeypatch):
    """An origin that declares the tiny product, published to a place of its own; the working directory is a clone."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    a_repository(origin, message=None)
    a_repository(clone)
    (origin / "params.yaml").write_text(TINY.replace("s3://lamplighter/", f"s3://lamplighter/{uuid.uuid4().hex}/"))
    commit(origin, "Declare a product")
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(origin))
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(clone)
    return origin


def commit(origin, message):
    git.git("add", "--all", cwd=origin)
    git.git("commit", "--quiet", "-m", message, cwd=origin)
    return git.git("rev-parse", "HEAD", cwd=origin).strip()


def url_of(origin):
    return yaml.safe_load((origin / "params.yaml").read_text())["products"]["tiny"]["publish"]["url"]


def experiment(origin, as_of, kind="train", listed=True):
    """A run of the past: a commit on no branch with its date and raw data, which the origin lists or has lost."""
    declared = (origin / "params.yaml").read_text()
    (origin / "params.yaml").write_text(re.sub("as_of: .*", f'as_of: "{as_of}"', declared))
    (origin / "dvc.lock").write_text(yaml.safe_dump({"stages": {"ingest@tiny": {"outs": []}}}))
    made = commit(origin, f"{kind} of {as_of}")
    git.git("fetch", "--quiet", str(origin), "HEAD")
    git.git("reset", "--quiet", "--hard", "HEAD~", cwd=origin)
    name = f"tiny-{as_of}-{kind}-{made[:8]}"
    if listed:
        git.git("update-ref", f"refs/exps/{made[:2]}/{made[2:]}/{name}", made, cwd=origin)
    return name, made


def lose(origin, name):
    """Prune an experiment, and what it was made of."""
    for line in git.git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=origin).splitlines():
        if line.endswith(name):
            git.git("update-ref", "-d", line, cwd=origin)
    git.git("reflog", "expire", "--expire=now", "--all", cwd=origin)
    git.git("gc", "--quiet", "--prune=now", cwd=origin)


def publish_night(origin, as_of, name, made):
    """Publish a night of an experiment."""
    product, _ = make_night(url_of(origin), as_of=as_of)
    facts = Run(name=name, product="tiny", as_of=str(as_of), revision="x", shards=3, commit=made)
    publish(product, as_of, facts)


def a_run(origin, as_of=DAY):
    """A run that is opened now, in its workspace: a clone of the origin as it is."""
    revision = git.git("rev-parse", "HEAD", cwd=origin).strip()
    run = Run(
        name=f"tiny-{as_of}-predict-{uuid.uuid4().hex[:8]}",
        product="tiny",
        as_of=str(as_of),
        revision=revision,
        shards=3,
    )
    git.git("clone", "--quiet", str(origin), str(run.workspace))
    return run


def carried_on(run):
    earlier = newest_run_before(run)
    return earlier and earlier.commit


def test_first_run_of_a_product_has_no_history(origin):
    assert newest_run_before(a_run(origin)) is None


def test_history_of_the_newest_run_up_to_the_date_is_carried_on(origin):
    made = {day: experiment(origin, day)[1] for day in (BEFORE, DAY, DAY + timedelta(days=1))}
    assert carried_on(a_run(origin)) == made[DAY]
    assert carried_on(a_run(origin, BEFORE - timedelta(days=1))) is None, "nothing of the future"


def test_clone_without_experiments_carries_on_from_what_the_tags_mark(origin, tmp_path, monkeypatch):
    _, made = experiment(origin, BEFORE)
    champions.promote("tiny", made, BEFORE, None, "approved by the gates")
    git.git("clone", "--quiet", str(origin), str(tmp_path / "plain"))
    monkeypatch.setenv("LAMPLIGHTER_ORIGIN", str(tmp_path / "plain"))
    assert git.git("ls-remote", str(tmp_path / "plain"), "refs/exps/*") == ""
    assert carried_on(a_run(tmp_path / "plain")) == made


def test_published_night_whose_run_is_lost_stops_the_next_until_a_person_decides(origin):
    """The model's training is there, and older: carried on from it, a day would be fetched anew in silence."""
    _, trained = experiment(origin, BEFORE)
    champions.promote("tiny", trained, BEFORE, None, "approved by the gates")
    name, made = experiment(origin, DAY, "predict")
    publish_night(origin, DAY, name, made)
    assert carried_on(a_run(origin)) == made
    lose(origin, name)
    with pytest.raises(UserError) as caught:
        newest_run_before(a_run(origin))
    message = str(caught.value)
    assert f"has not that of {name}, which published the night of {DAY} (commit {made[:12]})" in message
    assert f"the newest run that it keeps is tiny-{BEFORE}-train-" in message
    assert "git push <origin> 'refs/exps/*:refs/exps/*'" in message
    assert f"make anew PRODUCT=tiny AS_OF={DAY} REASON=..., commit, push" in message
    git.git("push", "--quiet", str(origin), f"{made}:refs/exps/{made[:2]}/{made[2:]}/{name}")
    assert carried_on(a_run(origin)) == made, "it was brought back, as the message says"


def test_person_lets_one_run_go_on_without_lost_history(origin, monkeypatch):
    _, trained = experiment(origin, BEFORE)
    name, made = experiment(origin, DAY, "predict")
    publish_night(origin, DAY, name, made)
    lose(origin, name)
    monkeypatch.chdir(origin)
    line = decide.anew(a_product(), DAY, "the host is gone", "Grace", date(2024, 2, 12))
    assert line.startswith(f"the run of {DAY} may begin without the history that is lost; read decisions/tiny/")
    git.git("add", "decisions", cwd=origin)
    commit(origin, "Decide")
    assert carried_on(a_run(origin)) == trained, "what the origin still has is carried on"
    with pytest.raises(UserError, match="the origin must have the product's history"):
        newest_run_before(a_run(origin, DAY + timedelta(days=1)))


def test_run_of_the_past_looks_at_the_night_of_its_own_date(origin):
    """The pointer is at a later night then; the night of the run's own date is looked at."""
    for day in (DAY, DAY + timedelta(days=1)):
        name, made = experiment(origin, day, "predict")
        publish_night(origin, day, name, made)
        lose(origin, name)
    with pytest.raises(UserError, match=f"published the night of {DAY} "):
        newest_run_before(a_run(origin))


def test_night_that_was_published_by_hand_shows_no_run(origin):
    product, _ = make_night(url_of(origin))
    publish(product, DAY)
    assert newest_run_before(a_run(origin)) is None
