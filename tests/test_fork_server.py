"""Oracle: what the same command does when Python starts it; real processes, sockets, locks and signals."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from builders import a_repository
from conftest import ROOT, environment

from tasks.runs import experiments, locks, programs
from tasks.runtime.forks import fork_server, forked

PYTHON = (sys.executable, "-m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with programs to run, and a server whose path is longer than a socket's may be."""
    folder = tmp_path_factory.mktemp("programs")
    long = folder / ("für morgen " * 8) / "home"
    long.mkdir(parents=True)
    (folder / "echo.py").write_text(
        "import os, sys\n"
        "print(sys.argv, os.getcwd(), os.environ.get('ASKED'), __name__, flush=True)\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(int(sys.argv[1]) if sys.argv[1].isdigit() else sys.argv[1])\n"
    )
    (folder / "fails.py").write_text("import atexit\natexit.register(print, 'at exit')\nraise ValueError('a bug')\n")
    (folder / "reads.py").write_text("print(input().upper())\n")
    (folder / "sleeps.py").write_text(
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen(['sleep', '600'])\nprint(inner.pid, flush=True)\ntime.sleep(600)\n"
    )
    preloaded = "import sys\nprint('dvc.cli' in sys.modules, 'tasks' in sys.modules, sys.path[0])\n"
    (folder / "preloaded.py").write_text(preloaded)
    env = environment(long)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMPLIGHTER_HOME", str(long))
        with forked.fork_server(long / "a fork server.socket", env):
            yield folder


def run(folder: Path, *arguments: str, text: str = "", **env: str) -> tuple[int, str]:
    """Exit code and output of a program that the server starts."""
    process = forked.fork_piped([*PYTHON, *arguments], folder, environment(folder, **env), takes_input=bool(text))
    assert process is not None, "the server did not answer"
    with process:
        if text:
            process.stdin.write(text)
            process.stdin.close()
        output = process.stdout.read()
    return process.returncode, output


def gone(pid: int) -> bool:
    """Whether a process ends soon."""
    for _ in range(100):
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


@pytest.mark.parametrize("arguments", [("echo", "0"), ("echo", "3"), ("echo", "a word"), ("fails",), ("absent",)])
def test_program_does_what_python_would_have_it_do(folder, arguments):
    code, output = run(folder, *arguments, ASKED="yes")
    env = environment(folder, ASKED="yes", PYTHONUNBUFFERED="1")
    alone = subprocess.run(
        [*PYTHON, *arguments],
        cwd=folder,
        env=env,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert code == alone.returncode
    if arguments[0] == "echo":
        assert output == alone.stdout
    else:
        assert output.splitlines()[-1].endswith(alone.stdout.splitlines()[-1].removeprefix(sys.executable))


def test_program_reads_what_it_is_given_and_nothing_else(folder):
    assert run(folder, "reads", text="a line\n") == (0, "A LINE\n")
    assert run(folder, "reads")[0] == 1, "it must not wait for a keyboard"


def test_program_has_what_is_preloaded_and_nothing_of_this_project(folder):
    for _ in range(200):
        code, output = run(folder, "preloaded")
        assert code == 0
        if output.startswith("True"):
            break
        time.sleep(0.1)
    assert output.split(maxsplit=2) == ["True", "False", f"{folder}\n"]


@pytest.mark.long
def test_everything_preloaded_can_be_imported_and_starts_no_thread():
    """A copy has the one thread that asked for it, and waits for ever where it needs another."""
    code = "import importlib, sys\nfrom pathlib import Path\n"
    code += "for name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "print(sorted({file.read_text() for file in Path('/proc/self/task').glob('*/comm')} - {'python\\n'}))"
    one_thread = environment(ROOT, OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", code, *fork_server.PRELOADED, *fork_server.OF_VALIDATE],
        env=one_thread,
        capture_output=True,
        text=True,
        check=True,
    )
    # jemalloc starts its own anew in a copy (background_thread_postfork_child), as OpenBLAS does where it has several.
    assert done.stdout in ("[]\n", "['jemalloc_bg_thd\\n']\n")


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_program_ends_with_all_it_started_when_the_task_that_asked_is_killed(folder, sign):
    """Airflow ends a task's process group, of which the program is no member."""
    asking = (
        "import os, sys, time\nfrom pathlib import Path\nfrom tasks.runtime.forks import forked\n"
        f"p = forked.fork_piped([{sys.executable!r}, '-m', 'sleeps'], Path({str(folder)!r}), dict(os.environ), "
        "takes_input=False)\nprint(p.pid, p.stdout.readline(), flush=True)\ntime.sleep(600)\n"
    )
    task = subprocess.Popen([sys.executable, "-c", asking], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in task.stdout.readline().split()]
    assert len(pids) == 2
    assert all(psutil.pid_exists(pid) for pid in pids)
    task.send_signal(sign)
    task.wait()
    assert all(gone(pid) for pid in pids)


def test_program_that_is_killed_says_so_as_one_of_subprocess_does(folder):
    process = forked.fork_piped([*PYTHON, "sleeps"], folder, environment(folder), takes_input=False)
    inner = int(process.stdout.readline())
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert gone(inner)


def test_program_whose_watcher_is_killed_does_not_go_on_unseen(folder):
    process = forked.fork_piped([*PYTHON, "sleeps"], folder, environment(folder), takes_input=False)
    inner = int(process.stdout.readline())
    psutil.Process(process.pid).parent().kill()
    assert process.wait() == -signal.SIGKILL
    assert gone(process.pid)
    assert gone(inner)


def test_program_holds_the_locks_of_the_task_that_asked(folder, tmp_path):
    """A retry waits until both have ended."""
    lock = tmp_path / "lock"
    with locks.locked(lock):
        process = forked.fork_piped([*PYTHON, "sleeps"], folder, environment(folder), takes_input=False)
        inner = int(process.stdout.readline())
    with lock.open("w") as retry:
        with pytest.raises(BlockingIOError):
            fcntl.flock(retry, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.kill()
        process.wait()
        assert gone(inner)
        fcntl.flock(retry, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_stage_of_dvc_is_forked_and_its_failure_is_known(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    run = experiments.Run(name="tiny-2024-02-10-train-00000000", product="tiny", as_of="", revision="", shards=1)
    workspace = a_repository(run.workspace)
    (workspace / "parent.py").write_text("import psutil; print(psutil.Process().parent().cmdline()[2])")
    (workspace / "fails.py").write_text("import sys; sys.exit(65)")
    stages = "stages:\n  good:\n    cmd: python -m parent\n  bad:\n    cmd: python -m fails\n"
    (workspace / "dvc.yaml").write_text(stages)
    with programs.one_dvc(run):
        assert programs.call_dvc(run, ["init", "--quiet"], quietly=True)[0] == 0
        assert programs.call_dvc(run, ["repro", "good"])[0] == 0
        assert str(Path(fork_server.__file__)) in capsys.readouterr().out
        code, output = programs.call_dvc(run, ["repro", "bad"], quietly=True)
    assert code != 0
    assert "failed to run: python -m fails, exited with 65" in output


def test_without_a_server_programs_start_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv(forked.ADDRESS, str(tmp_path / "nobody.socket"))
    assert forked.fork_piped([*PYTHON, "echo"], tmp_path, {}, takes_input=False) is None
    monkeypatch.delenv(forked.ADDRESS)
    assert forked.fork_piped([*PYTHON, "echo"], tmp_path, {}, takes_input=False) is None


def test_server_ends_with_the_command_that_started_it(tmp_path):
    code = (
        "import os, time\nfrom pathlib import Path\nfrom tasks.runtime.forks import forked\n"
        f"with forked.fork_server(Path({str(tmp_path / 's')!r}), dict(os.environ)):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    for _ in range(400):
        if not (tmp_path / "s").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the server still listens")


def copies() -> set[int]:
    """The processes of the server and of what it has started."""
    place = os.environ[forked.ADDRESS]
    return {each.pid for each in psutil.process_iter(["cmdline"]) if place in (each.info["cmdline"] or ())}


def test_garbage_and_a_sender_that_leaves_do_not_stop_the_server(folder):
    before = copies()
    before = copies()
    for content in (b"", b"\0\0", b"\xff\xff\xff\xffx", b"\0\0\0\2{}", b"\0\0\0\4oops"):
        place = os.environ[forked.ADDRESS]
        inside = os.open(os.path.dirname(place), os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{inside}/{os.path.basename(place)}")
            connection.sendall(content)
        os.close(inside)
    assert run(folder, "echo", "0")[0] == 0
    assert all(gone(pid) for pid in copies() - before), "nothing is left of them"


def test_validate_alone_waits_for_what_it_alone_imports(folder):
    place = os.environ[forked.ADDRESS]
    assert fork_server.address(place, ["-m", "tasks.validate", "tiny"]) != place
    assert fork_server.address(place, ["-m", "tasks.ingest", "tiny"]) == place
    (folder / "tasks").mkdir()
    (folder / "tasks" / "validate.py").write_text("import sys; print('great_expectations' in sys.modules)")
    assert run(folder, "tasks.validate") == (0, "True\n")
