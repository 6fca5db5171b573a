"""Read the settings of this machine from the environment: where things lie, and which ports are used.

LAMPLIGHTER_ORIGIN: the repository that runs clone and push to; default: the one this file lies in.
LAMPLIGHTER_HOME: where workspaces, checkpoints and folds lie; default: <root>/.lamplighter.
LAMPLIGHTER_CACHE: the DVC cache of all workspaces on this disk; default: <root>/.dvc/cache.
LAMPLIGHTER_S3_PORT, LAMPLIGHTER_UI_PORT: of the embedded servers; defaults: 8333, 8080.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tasks.runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
"""The repository that this file lies in."""
BIN = Path(sys.executable).parent
"""Where the programs of this environment lie."""
KEPT_DAYS = 7
"""A checkpoint or fold untouched for longer belongs to no training that will go on."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says of this machine."""

    origin: str
    """The repository that runs clone, and push experiments and tags to: a path or a git URL."""
    home: Path
    """Where workspaces, checkpoints, folds and the embedded servers' files lie."""
    cache: str
    """The DVC cache of all workspaces on this disk."""
    s3_port: int
    """The embedded object store's port on loopback."""
    ui_port: int
    """The embedded Airflow's port on loopback; the next one is for the tasks of its runs."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the environment as it is now. Raises UserError for a port that is none."""
        return cls(
            origin=os.environ.get("LAMPLIGHTER_ORIGIN") or str(ROOT),
            home=Path(os.environ.get("LAMPLIGHTER_HOME") or ROOT / ".lamplighter").resolve(),
            cache=os.environ.get("LAMPLIGHTER_CACHE") or str(ROOT / ".dvc" / "cache"),
            s3_port=_port("LAMPLIGHTER_S3_PORT", "8333"),
            ui_port=_port("LAMPLIGHTER_UI_PORT", "8080"),
        )


def _port(name: str, default: str) -> int:
    text = os.environ.get(name) or default
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UserError(f"{name} must be a port from 1 to 65535, got {text!r}; set it so, or unset it")
    return int(text)


def airflow_run() -> str | None:
    """Return Airflow's name of the run that this process works for; None outside of Airflow."""
    return os.environ.get("AIRFLOW_CTX_DAG_RUN_ID") or None


def airflow_page(dag: str) -> str | None:
    """Return the address of that run's page; None outside of Airflow, and where the environment does not say its place.

    Airflow's address is its own setting `[api] base_url`, given as AIRFLOW__API__BASE_URL.
    """
    base, run = os.environ.get("AIRFLOW__API__BASE_URL"), airflow_run()
    return f"{base.rstrip('/')}/dags/{quote(dag, safe='')}/runs/{quote(run, safe='')}" if base and run else None


def settings() -> Settings:
    """Return the settings that the environment holds at this moment."""
    return Settings.from_environment()
