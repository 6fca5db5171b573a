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
    """The embedded Airflow's port on loopback."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the environment as it is now."""
        return cls(
            origin=os.environ.get("LAMPLIGHTER_ORIGIN", str(ROOT)),
            home=Path(os.environ.get("LAMPLIGHTER_HOME", ROOT / ".lamplighter")).resolve(),
            cache=os.environ.get("LAMPLIGHTER_CACHE", str(ROOT / ".dvc" / "cache")),
            s3_port=int(os.environ.get("LAMPLIGHTER_S3_PORT", "8333")),
            ui_port=int(os.environ.get("LAMPLIGHTER_UI_PORT", "8080")),
        )


def settings() -> Settings:
    """Return the settings that the environment holds at this moment."""
    return Settings.from_environment()
