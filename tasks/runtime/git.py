"""Run git: the one place from which it is called."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tasks.runtime.errors import GitTimeout, TransientError, UserError
from tasks.runtime.processes import kill_process_tree
from tasks.runtime.settings import settings
from tasks.runtime.surroundings import explained_output

GIT_SECONDS = 1800
"""Git that has not ended by then hangs, mostly on a connection: a retry makes a new one."""


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git and return its output.

    Raises UserError where its message says that a person must act, else TransientError with the message, GitTimeout
    where it does not end.
    """
    code, output, message = _run(arguments, cwd)
    if code:
        known = explained_output(_shown(arguments), redact_credentials(message))
        raise known or TransientError(redact_credentials(f"{_shown(arguments)} failed: {message.strip()}"))
    return output


def try_git(*arguments: str, cwd: Path | None = None) -> str | None:
    """Run git and return its output; None where it fails, for callers to whom a failure is an answer.

    Raises GitTimeout where it does not end.
    """
    code, output, _ = _run(arguments, cwd)
    return None if code else output


def has_fetched(wanted: str, cwd: Path) -> bool:
    """Fetch a commit or reference of the origin; return whether the origin has it.

    Raises as `git` does where the origin does not answer, which says nothing about what it has.
    """
    fetch = ("fetch", "--quiet", "--no-tags", settings().origin, wanted)
    if try_git(*fetch, cwd=cwd) is not None:
        return True
    git("ls-remote", settings().origin, "HEAD")  # servers have words of their own for what they lack
    return try_git(*fetch, cwd=cwd) is not None


def redact_credentials(text: str) -> str:
    """Return a text without the user and password that the origin's address may have."""
    secret, at, _ = urlsplit(settings().origin).netloc.rpartition("@")
    return text.replace(secret + at, "") if at else text


def _run(arguments: tuple[str, ...], cwd: Path | None) -> tuple[int, str, str]:
    """Run git; return its exit code, output and message. Raises UserError where there is no git."""
    if shutil.which("git") is None:
        raise UserError("git must be on PATH, and is not; install git, or correct PATH")
    with subprocess.Popen(
        ["git", *arguments],
        cwd=cwd,
        text=True,
        errors="surrogateescape",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Its messages in English, by which `tasks.runtime.surroundings` knows them.
        env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
    ) as process:
        try:
            output, message = process.communicate(timeout=GIT_SECONDS)
        except BaseException as error:  # also the signal by which Airflow ends a task
            kill_process_tree(process.pid)
            if isinstance(error, subprocess.TimeoutExpired):
                text = f"{_shown(arguments)} did not end within {GIT_SECONDS} s"
                raise GitTimeout(redact_credentials(text)) from None
            raise
    return process.returncode, output, message


def _shown(arguments: tuple[str, ...]) -> str:
    return f"git {' '.join(arguments[:3])}"
