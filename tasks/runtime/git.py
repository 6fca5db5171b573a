"""Run git."""

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from tasks.runtime.errors import TransientError
from tasks.runtime.processes import kill_process_tree
from tasks.runtime.settings import settings

GIT_SECONDS = 1800
"""What git has not done by then hangs, mostly on a connection: a retry makes a new one."""


class GitTimeout(TransientError):
    """Git was killed at work, as it would not end."""


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git and return what it prints. Raises PassingError with its message where it fails, Hung where it hangs."""
    what = f"git {' '.join(arguments[:3])}"
    with subprocess.Popen(
        ["git", *arguments],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
    ) as process:
        try:
            printed, told = process.communicate(timeout=GIT_SECONDS)
        except BaseException as error:
            kill_process_tree(process.pid)
            if isinstance(error, subprocess.TimeoutExpired):
                raise GitTimeout(redact_credentials(f"{what} did not end within {GIT_SECONDS} s")) from None
            raise
    if process.returncode:
        raise TransientError(redact_credentials(f"{what} failed: {told.strip()}"))
    return printed


def redact_credentials(told: str) -> str:
    """Without the user and password that the origin's address may have."""
    secret, at, _ = urlsplit(settings().origin).netloc.rpartition("@")
    return told.replace(secret + at, "") if at else told
