"""Show which experiments and data nobody needs any more, and remove them when a person says so.

    make gc             shows what would go, and asks at a terminal
    make gc YES=1       shows and removes it

What stays, and for how long, is in `tasks.runs.retention`.
"""

import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from tasks import params
from tasks.runs.experiments import workspaces
from tasks.runs.locks import locked, removal_lock
from tasks.runs.retention import YOUNG, Plan, carry_out, counted, make_plan
from tasks.runs.workspace import KEPT_WORKSPACES, remove_workspaces
from tasks.runtime.errors import TransientError
from tasks.runtime.files import remove_older_than
from tasks.runtime.settings import settings

SHOWN = 20
"""So many experiments are named."""


def prune(now: datetime, yes: bool, ask: Callable[[str], str] | None = None) -> str:
    """Show what would go; remove it where `yes`, or where a person answers so; return the last line.

    Raises UserError where what is needed is not all known, TransientError where tasks are at work on this machine or
    a place does not answer.
    """
    print("gc: looking at the origin, the published nights, the DVC cache and remote", flush=True)
    if not yes:
        with _plan(now) as plan:
            print(shown(plan), flush=True)
            if not _anything(plan):
                return "gc: nothing goes"
        if ask is None or ask("Remove what goes? [y/N] ").strip().lower() not in ("y", "yes"):
            return "gc: nothing was removed; make gc YES=1 removes what goes"
    try:
        with locked(removal_lock(), fcntl.LOCK_EX | fcntl.LOCK_NB), _plan(now) as plan:
            if yes:
                print(shown(plan), flush=True)
            remove_workspaces(_old_workspaces())
            _remove_remains(YOUNG)
            carry_out(plan)
            freed = sum(plan.places[name].size(hashes) for name, hashes in plan.unneeded.items())
    except BlockingIOError:
        raise TransientError(
            "no task may be at work on this machine while data are removed, and one is; wait for its end, then run "
            "make gc again"
        ) from None
    return f"gc: removed {len(plan.going):,} experiments and {_bytes(freed)} of data"


def shown(plan: Plan) -> str:
    """Return a table of what there is and what goes, the experiments that go, and why the others stay."""
    old, all_workspaces = _old_workspaces(), _workspaces()
    rows = [
        ("", "there are", "go", "bytes that go"),
        ("experiments", f"{len(plan.experiments):,}", f"{len(plan.going):,}", ""),
        ("workspaces on this disk", f"{len(all_workspaces):,}", f"{len(old):,}", _bytes(sum(map(_size, old)))),
    ]
    for name, objects in plan.places.items():
        going = plan.unneeded[name]
        rows.append(
            (f"objects in the {name}", f"{len(objects.stored):,}", f"{len(going):,}", _bytes(objects.size(going)))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    stay = {each.commit: plan.reasons[each.commit] for each in plan.experiments if each.commit in plan.reasons}
    lines += [
        f"{name} is {objects.name}" + ("; no other project may keep its data there" if name == "remote" else "")
        for name, objects in plan.places.items()
    ]
    lines += [f"{count:,} experiments stay: {_REASONS[reason]}" for reason, count in counted(stay).items()]
    names = sorted(each.name for each in plan.going)
    lines += [f"goes: {name}" for name in names[:SHOWN]]
    lines += [f"goes: {len(names) - SHOWN:,} more experiments"] * (len(names) > SHOWN)
    if plan.lost:
        lines.append(
            f"LOST: the lists of {len(plan.lost):,} folders that must stay are in neither cache nor remote, such as "
            f"{min(plan.lost)}; what they held counts as needed by nobody: restore the remote first if you can"
        )
    return "\n".join(line.rstrip() for line in lines)


_REASONS = {
    "nights": "a published night was made by them, or by their model",
    "registry": "their model was registered or predicted once",
    "history": "the next run carries its history on from them",
    "new": "they are newer than retention.experiments_days",
}


@contextmanager
def _plan(now: datetime) -> Iterator[Plan]:
    """Yield what would go; its clone is there meanwhile."""
    settings().home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gc-", dir=settings().home) as folder:
        yield make_plan(Path(folder) / "clone", now)


def _anything(plan: Plan) -> bool:
    return bool(plan.going or any(plan.unneeded.values()) or _old_workspaces())


def _workspaces() -> list[Path]:
    return [path for name in params.load().products for path in workspaces(name)]


def _old_workspaces() -> list[Path]:
    """Return the workspaces that no next task is likely to go on in: of each product all but the newest few."""
    return [path for name in params.load().products for path in workspaces(name)[KEPT_WORKSPACES:]]


def _remove_remains(age: timedelta) -> None:
    """Remove what programs that were killed have left on this disk."""
    home = settings().home
    for pattern in ("runs/.*.tmp-*", "recreate-*", "gc-*"):
        remove_older_than(home, age / timedelta(days=1), pattern)


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _bytes(size: int) -> str:
    """Return a size for people.

    >>> _bytes(0), _bytes(2048), _bytes(3 * 2**30)
    ('0 B', '2.0 KB', '3.0 GB')
    """
    for unit, power in (("GB", 3), ("MB", 2), ("KB", 1)):
        if size >= 1024**power:
            return f"{size / 1024**power:,.1f} {unit}"
    return f"{size} B"
