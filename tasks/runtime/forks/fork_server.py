"""Start programs from a process that has imported what they need: a copy of it begins at once, where Python takes a
second, and five for Great Expectations.

    python -P tasks/runtime/forks/fork_server.py SOCKET [--while-asked]

Whoever connects to SOCKET sends what is to be run, as `forked` beside it does, and its standard streams. Each
program is a copy of this process with the environment, folder and arguments that were asked for, in a process group of
its own, and is ended where the connection ends: with the task that has asked, however that came to its end. It is
started by its path and imports nothing of this project: what the programs run is another revision of it. With
--while-asked it ends with its standard input.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import NoReturn

PRELOADED = (
    "pandas",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "yaml",
    "pydantic.dataclasses",
    "boto3",
    "tenacity",
    "dvc.cli",
    "dvc.commands.data_sync",
    "dvc.commands.repro",
    "dvc.lock",
    "dvc.repo",
    "dvc.scm",
    "dvc_s3",
    "s3fs",
    "networkx",
    "jsonschema",
    "onnx",
)
"""What most programs of a night import.

Not what starts threads as it is imported, as onnxruntime does: a copy of a process has one of its threads alone.
"""
OF_MONITOR = ("sklearn.metrics",)
"""What measures a night whose labels have come imports besides: the last of all, since it is needed last."""
OF_VALIDATE = ("great_expectations",)
"""What one stage alone imports, and what takes longest: a second server does so, and nobody else waits for it."""
MAX_DESCRIPTORS = 64
"""Of the standard streams and the locks of one program."""


def address(place: str, arguments: list[str]) -> str:
    """Return the socket, of the two servers of a place, where a program is to be asked for."""
    return f"{place}.validate" if arguments[:2] == ["-m", "tasks.validate"] else place


def start(place: str, *, while_asked: bool) -> None:
    """Serve at both sockets of a place: the second server is a copy of the first one."""
    listener, of_validate = listen(place), listen(f"{place}.validate")
    if os.fork() == 0:
        listener.close()
        serve(of_validate, f"{place}.validate", (*PRELOADED, *OF_VALIDATE), while_asked=while_asked)
        os._exit(0)
    of_validate.close()
    serve(listener, place, (*PRELOADED, *OF_MONITOR), while_asked=while_asked)


def serve(listener: socket.socket, place: str, preloaded: tuple[str, ...], *, while_asked: bool) -> None:
    """Import what is preloaded, and start what is asked for, until a signal or the end of input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    waiting = list(preloaded)
    while True:
        watched = [listener, *([sys.stdin] if while_asked else [])]
        ready, _, _ = select.select(watched, [], [], 0 if waiting else None)
        if sys.stdin in ready:
            break
        if listener in ready:
            connection, _ = listener.accept()
            if os.fork() == 0:
                try:
                    listener.close()
                    watch(connection)
                finally:
                    os._exit(1)  # a copy ends so and in no other way: what C libraries would do at an exit may hang
            connection.close()
        elif waiting:
            with contextlib.suppress(ImportError):  # a program that needs it says so
                importlib.import_module(waiting.pop(0))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place)


def listen(place: str) -> socket.socket:
    """Return a socket that listens at a path; it takes the place of one that a killed server has left."""
    listener, folder = socket.socket(socket.AF_UNIX), os.path.dirname(place)
    temporary = f"{os.path.basename(place)}.{os.getpid()}"
    inside = os.open(folder, os.O_RDONLY)
    os.umask(0o077)
    listener.bind(f"/proc/self/fd/{inside}/{temporary}")  # the path of a socket has at most 107 characters
    os.close(inside)
    listener.listen(128)
    os.rename(os.path.join(folder, temporary), place)
    return listener


def watch(connection: socket.socket) -> None:
    """Start the program that a connection asks for, tell how it ends, and end it where the connection ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError, ValueError):  # whoever has asked has gone, or has sent what is no question
        asked, descriptors = receive(connection)
        pid = os.fork()
        if pid == 0:
            try:
                connection.close()
                become(asked, descriptors)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        with contextlib.suppress(OSError):  # it may have done so, and ended, already
            os.setpgid(pid, pid)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(b"%d\n" % pid)
        ended = os.pidfd_open(pid)
        ready, _, _ = select.select([ended, connection.fileno()], [], [])
        if ended not in ready:
            kill(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        kill(pid)  # what it has started and left
        connection.sendall(b"%d\n" % status)


def kill(group: int) -> None:
    """Kill a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def receive(connection: socket.socket) -> tuple[dict, list[int]]:
    """Return what is asked for, and the descriptors that came with it. Raises OSError where the sender has gone."""
    first, descriptors, _, _ = socket.recv_fds(connection, 4, MAX_DESCRIPTORS)
    (length,) = struct.unpack("!I", first) if len(first) == 4 else (0,)
    content = b""
    while len(content) < length:
        piece = connection.recv(length - len(content))
        if not piece:
            break
        content += piece
    if not length or len(content) < length:
        raise OSError("whoever connected has gone")
    return json.loads(content), descriptors


def become(asked: dict, descriptors: list[int]) -> NoReturn:
    """Run a program of Python as a new interpreter would, and exit as it does."""
    os.setpgid(0, 0)
    for target, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for descriptor in descriptors[3:]:
        os.set_inheritable(descriptor, True)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler if sign == signal.SIGINT else signal.SIG_DFL)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", 1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    code = exit_code(asked["arguments"])
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # what it has imported need not be taken apart


def exit_code(arguments: list[str]) -> int:
    """Run `-m MODULE ...` or `-P FILE ...`; return the exit code, and print what stopped it as the interpreter does."""
    kind, name, *rest = arguments
    sys.argv = [name, *rest]
    try:
        if kind == "-m":
            sys.path.insert(0, os.getcwd())
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


if __name__ == "__main__":
    start(sys.argv[1], while_asked="--while-asked" in sys.argv[2:])
