"""An erasure that is killed at every label, one after the other, and ends as one that nothing has stopped."""

import os
from pathlib import Path

from erased_project import lived_project

from tasks.erasure import disk, proof
from tasks.runs import retention


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Erase a person from a product that has lived; nothing in it is drawn by chance."""
    from test_erase import LABELS, check_killed

    for name in ("LAMPLIGHTER_ORIGIN", "LAMPLIGHTER_CACHE", "LAMPLIGHTER_HOME", "DVC_SITE_CACHE_DIR"):
        os.environ[name] = ""
    for module in (retention, disk, proof):
        module.ROOT = folder / "here"
    os.chdir(folder)
    check_killed(lived_project(folder), LABELS)
    return {"erasures killed at a label and finished": len(LABELS)}
