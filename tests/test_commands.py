"""Oracle: the conventional exit codes of sysexits.h; what Python says it has imported."""

import re
import sys

import pytest
from conftest import ROOT, call, environment

COMMANDS = [sys.executable, "-m", "tasks.commands"]
HEAVY = {"torch", "pandas", "great_expectations", "onnxruntime", "boto3", "dvc", "sklearn", "airflow"}


def listed(tmp_path) -> set[str]:
    """The commands on the one help page."""
    shown = call([*COMMANDS, "--help"], ROOT, environment(tmp_path))
    return set(re.findall(r"^  ([a-z-]+)  ", shown[shown.index("Commands:") :], flags=re.MULTILINE))


def test_one_help_page_lists_every_command_that_make_calls(tmp_path):
    called = set(re.findall(r"-m tasks\.commands ([a-z-]+)", (ROOT / "Makefile").read_text("utf-8")))
    assert {"run", "up", "down", "trace", "recreate", "audit", "licences", "tune", "accept", "requeue"} <= called
    assert called <= listed(tmp_path)


def test_every_command_has_help_and_asks_for_nothing_to_show_it(tmp_path):
    names = sorted(listed(tmp_path))
    asked = """
import sys
from contextlib import suppress
from tasks.commands.__main__ import app
for name in sys.argv[1:]:
    with suppress(SystemExit):
        app([name, "--help"])
    print(chr(30), flush=True)
"""
    printed = call([sys.executable, "-c", asked, *names], ROOT, environment(tmp_path, PYTHONPATH=str(ROOT)))
    shown = dict(zip(names, printed.split("\x1e\n"), strict=False))
    for name in names:
        assert re.match(rf"\s*Usage: \S+ {name} ", shown[name]), shown[name]
    assert "Usage: python -m tasks.commands run " in call([*COMMANDS, "run", "--help"], ROOT, environment(tmp_path))
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy(tmp_path):
    code = "import sys, tasks.commands.__main__; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    imported = call([sys.executable, "-c", code], ROOT, environment(tmp_path, PYTHONPATH=str(ROOT))).split()
    assert "typer" in imported
    assert not HEAVY & set(imported)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "flight-delay"],
        ["run", "flight-delays", "--as-of", "2013-6-30"],
        ["trace", "s3://nowhere"],
        ["accept", "flight-delays", "30 June", "a holiday"],
        ["requeue", "flight-delays", ""],
    ],
)
def test_a_persons_mistake_exits_with_65_and_one_message(tmp_path, arguments):
    env = environment(tmp_path, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")
    printed = call([*COMMANDS, *arguments], ROOT, env, expect=65)
    assert printed.startswith(f"{arguments[0]} stopped:\n")
    assert "Traceback" not in printed


def test_a_store_that_does_not_answer_exits_with_75(tmp_path):
    env = environment(
        tmp_path, AWS_ENDPOINT_URL_S3="http://127.0.0.1:9", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b"
    )
    uri = "s3://lamplighter/predictions/flight-delays/dt=2013-06-30/_manifest.json"
    printed = call([*COMMANDS, "trace", uri], ROOT, env, expect=75)
    assert printed.startswith("trace could not finish now, and may later:\n")


def test_a_choice_that_is_none_names_the_choices(tmp_path):
    printed = call([*COMMANDS, "recreate", "s3://x", "--from", "nothing"], ROOT, environment(tmp_path), expect=2)
    assert "'model', 'data'" in printed
