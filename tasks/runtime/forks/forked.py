"""Ask a fork server for a program: see `tasks.runtime.forks.fork_server`.

LAMPLIGHTER_FORK_SERVER names the socket of the server, which `make up` and `make backfill` start. Where it is not set,
or nobody answers there, programs are started as always: it saves time, and nothing depends on it.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from tasks.runtime.forks import fork_server as server
from tasks.runtime.processes import kill_process_tree

ADDRESS = "LAMPLIGHTER_FORK_SERVER"
"""The variable with the path of the server's socket."""


class Forked:
    """A program that a fork server has started, used as a `subprocess.Popen` of texts is."""

    stdin: TextIO | None = None
    stdout: TextIO | None = None

    def __init__(self, connection: socket.socket) -> None:
        """Read the number of the process. Raises OSError where the server has gone."""
        self._connection, self._answers = connection, connection.makefile("r", encoding="ascii")
        self.returncode: int | None = None
        number = self._answers.readline()
        if not number:
            raise OSError("the fork server has started nothing")
        self.pid = int(number)

    def wait(self) -> int:
        """Wait until the program has ended, and return its exit code; negative is the signal that killed it."""
        if self.returncode is None:
            status = ""
            with suppress(ConnectionError):
                status = self._answers.readline()
            if not status:  # whoever watched it was killed
                kill_process_tree(self.pid)
            self.returncode = int(status or -9)
            self._connection.close()
        return self.returncode

    def kill(self) -> None:
        """Kill the program with all that it has started."""
        kill_process_tree(self.pid)

    def __enter__(self) -> Self:
        """Return the program."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close its streams and wait for it."""
        for stream in (self.stdout, self.stdin):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        self.wait()


def fork(command: Sequence[str], cwd: Path, env: dict[str, str], streams: tuple[int, int, int]) -> Forked | None:
    """Start a program of this interpreter in the fork server, with these standard streams; None where there is none.

    It inherits the descriptors that a program started otherwise would: those of the workspace's locks.
    """
    place = os.environ.get(ADDRESS)
    if not place or command[0] != sys.executable or command[1] not in ("-m", "-P"):
        return None
    place = server.address(place, list(command[1:]))
    connection = socket.socket(socket.AF_UNIX)
    try:
        inside = os.open(os.path.dirname(place), os.O_RDONLY)
        try:
            connection.connect(f"/proc/self/fd/{inside}/{os.path.basename(place)}")  # paths of sockets must be short
        finally:
            os.close(inside)
        content = json.dumps({"arguments": list(command[1:]), "cwd": str(cwd), "env": env}).encode()
        socket.send_fds(connection, [struct.pack("!I", len(content))], [*streams, *inherited()])
        connection.sendall(content)
        return Forked(connection)
    except OSError:
        connection.close()
        return None


def fork_piped(command: Sequence[str], cwd: Path, env: dict[str, str], *, takes_input: bool) -> Forked | None:
    """Start a program as `fork` does, and give what it prints as texts; `takes_input` by a pipe, or else none."""
    with ExitStack() as ends:
        read_in, write_in = os.pipe() if takes_input else (os.open(os.devnull, os.O_RDONLY), None)
        read_out, write_out = os.pipe()
        for each in (read_in, write_out, read_out, *([] if write_in is None else [write_in])):
            ends.callback(os.close, each)
        process = fork(command, cwd, env, (read_in, write_out, write_out))
        if process:
            process.stdout = os.fdopen(os.dup(read_out), encoding="utf-8", errors="replace")
            process.stdin = None if write_in is None else os.fdopen(os.dup(write_in), "w", encoding="utf-8")
        return process


def server_command(place: Path) -> list[str]:
    """Return the command that starts a fork server which listens at `place`."""
    return [sys.executable, "-P", server.__file__, str(place)]


@contextmanager
def fork_server(place: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a fork server for the programs of this process; yield what others need in their environment to use it too."""
    command = [*server_command(place), "--while-asked"]
    # In a session of its own: an interrupt from the keyboard ends what has asked, and so what it has asked for.
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, start_new_session=True) as process:
        while process.poll() is None and not place.exists():
            time.sleep(0.01)
        os.environ[ADDRESS] = str(place)
        try:
            yield {ADDRESS: str(place)}
        finally:
            del os.environ[ADDRESS]
            process.terminate()  # it may be at an import, and its programs have ended
            place.unlink(missing_ok=True)


def inherited() -> list[int]:
    """Return the descriptors, other than the standard streams, that the programs of this process inherit."""
    found = []
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the folder's own is closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return sorted(found)
