"""Start, find and stop servers that outlive the command that started them.

Each has a log and a process id file in .lamplighter/. The server keeps the file locked, so that a number that the
operating system has given to another program meanwhile is never taken for it.
"""

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from tasks.runtime.errors import TransientError
from tasks.runtime.settings import settings

PLACE = "LAMPLIGHTER_HOME"
"""The variable by which a running server tells where its folder was when it was started."""


def start_daemon(name: str, env: dict[str, str], command: list[str]) -> None:
    """Start a server in a session of its own, unless it runs."""
    with (settings().home / f"{name}.log").open("ab") as log, (settings().home / f"{name}.pid").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        file.truncate(0)
        process = subprocess.Popen(
            command,
            env=env | {PLACE: str(settings().home)},
            cwd=settings().home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[file.fileno()],
        )
        file.write(str(process.pid))


def is_running(name: str) -> bool:
    """Return whether a server of this folder has not ended, or is being started."""
    with suppress(FileNotFoundError), (settings().home / f"{name}.pid").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def stop_where_moved(name: str) -> None:
    """Stop a server that was started before its folder was moved: it would go on writing to the old place."""
    pid = running_pid(name)
    with suppress(psutil.Error):
        if pid is not None and psutil.Process(pid).environ().get(PLACE, "") not in ("", str(settings().home)):
            print(f"{name}: was started before this folder was moved; starting it anew", flush=True)
            stop_daemon(name)


def running_pid(name: str) -> int | None:
    """Return the process id of a server that has not ended, None where there is none or it is being started."""
    with suppress(FileNotFoundError), (settings().home / f"{name}.pid").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read()
            return int(text) if text else None
    return None


def stop_daemon(name: str) -> bool:
    """Stop a server and forget it; return whether it ran."""
    pid = running_pid(name)
    if pid is not None:
        _end_session(pid)
    (settings().home / f"{name}.pid").unlink(missing_ok=True)
    return pid is not None


def _end_session(pid: int) -> None:
    """End a server and its children; kill whatever has not ended after ten seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, sign)
        except ProcessLookupError:
            return
        for _ in range(100):
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)


def wait_until(ready: Callable[[], bool], seconds: int, failure: str) -> None:
    """Wait until `ready()`. Raises TransientError with the text `failure` after so many seconds."""
    for _ in range(seconds * 2):
        if ready():
            return
        time.sleep(0.5)
    raise TransientError(f"{failure} (waited {seconds} s)")


def port_answers(port: int) -> bool:
    """Return whether a program listens on a port of loopback."""
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0
