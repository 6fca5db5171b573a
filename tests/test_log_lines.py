"""Oracle: what programs really print, line by line, read by Python's own JSON; without the setting, text as before."""

import io
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from conftest import environment, make_project

from tasks.runs.experiments import Run
from tasks.runs.programs import call
from tasks.runtime import log_lines

JSON = {"LAMPLIGHTER_LOG": "json"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("log_lines"))


def output(project, *arguments, **env):
    """Exit code and all that a program prints, standard error included."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment(project / "home", **env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.long
def test_every_line_of_a_stage_is_json_with_product_as_of_stage_and_run(project):
    code, printed = output(project, "-m", "tasks.ingest", "tiny", LAMPLIGHTER_RUN="tiny-2024-02-10-train-ab", **JSON)
    assert code == 0
    last = lines(printed)[-1]
    assert list(last) == ["time", "level", "product", "as_of", "stage", "run", "message"]
    about = {"product": "tiny", "as_of": "2024-02-10", "stage": "ingest", "run": "tiny-2024-02-10-train-ab"}
    assert last == {**last, **about, "level": "info"}
    assert last["message"].startswith("ingest: ")
    assert abs((datetime.fromisoformat(last["time"]) - datetime.now(UTC)).total_seconds()) < 60


def test_without_the_setting_lines_are_text(project):
    code, printed = output(project, "-m", "tasks.ingest", "tiny")
    assert (code, printed.splitlines()[-1][:8]) == (0, "ingest: ")
    assert '"message"' not in printed


def test_what_stops_a_stage_is_one_line_of_level_error(project):
    code, printed = output(project, "-m", "tasks.ingest", "nobody", **JSON)
    (line,) = lines(printed)
    assert (code, line["level"], line["product"]) == (65, "error", "nobody")
    assert line["message"].startswith("ingest stopped:\nparams.yaml: no product is called 'nobody'")


def test_traceback_of_a_bug_is_one_line(project):
    (project / "broken.py").write_text(
        "from tasks import stage\n\n\ndef ingest(product, as_of):\n    1 / 0\n\n\nstage.run('ingest', 'tiny', ingest)\n"
    )
    code, printed = output(project, "-m", "broken", **JSON)
    (line,) = lines(printed)
    assert (code, line["level"], line["stage"]) == (1, "error", "ingest")
    assert line["message"].startswith("Traceback (most recent call last):\n")
    assert line["message"].endswith("ZeroDivisionError: division by zero")


def test_format_that_is_none_is_refused(project):
    code, printed = output(project, "-m", "tasks.ingest", "tiny", LAMPLIGHTER_LOG="xml")
    assert code == 65
    assert "LAMPLIGHTER_LOG must be text or json, got 'xml'; set it so, or unset it" in printed


SHOWS = """
import os, sys
from tqdm import tqdm
from tasks.runtime.log_lines import tell_of
print("before it is known what this is of")
os.write(1, b"from a library in C\\n")
tell_of(product="tiny", as_of="2024-02-10", stage="train")
print("two", "words"), print("two\\nlines"), print(), print("a note", file=sys.stderr)
for _ in tqdm(range(3), mininterval=0): pass
print("no end", end="")
"""


def test_task_shows_each_line_of_its_programs_once_and_all_as_json(project, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    monkeypatch.setenv("LAMPLIGHTER_LOG", "json")
    run = Run(name="tiny-2024-02-10-train-ab", product="tiny", as_of="2024-02-10", revision="0" * 40, shards=1)
    run.workspace.mkdir(parents=True)
    (run.workspace / "tasks").symlink_to(project / "tasks")
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    log_lines.tell_of(product=run.product, as_of=run.as_of, stage="train", run=run.name)
    code, last = call(run, [sys.executable, "-c", SHOWS])
    shown = lines(capfd.readouterr().out)
    assert (code, last.count("\n")) == (0, len(shown))
    assert {each["run"] for each in shown} == {run.name}
    texts = [(each["level"], each["message"]) for each in shown if "it/s" not in each["message"]]
    assert ("info", "two\nlines") in texts
    assert ("warning", "a note") in texts
    assert texts[:3] == [
        ("info", "before it is known what this is of"),
        ("info", "from a library in C"),
        ("info", "two words"),
    ]
    assert texts[-1] == ("info", "no end")
    assert {each["level"] for each in shown if "it/s" in each["message"]} == {"info"}


def test_threads_that_print_at_once_get_a_line_each():
    out = io.StringIO()
    stream = log_lines.JsonLines(out, "info")
    stream.write("one ")
    thread = threading.Thread(target=lambda: stream.write("two\n"))
    thread.start()
    thread.join()
    stream.write("three\n")
    assert [line["message"] for line in lines(out.getvalue())] == ["two", "one three"]
