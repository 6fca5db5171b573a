"""Know what was erased of a product on a person's word, as the origin says: refs/erasures/<product>.

The reference names a commit of its own, on no branch, with one file: keyed hashes of what was erased, and the hashes of
the data that are gone with it. A run goes on only where its own revision knows all of these, lest it bring rows back
that it has read before; and whoever misses data can tell that they are gone on purpose.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path

from pydantic.dataclasses import dataclass

from tasks.rows.intake.erased import Tombstones, file_of
from tasks.runtime.errors import UserError
from tasks.runtime.files import write_json
from tasks.runtime.git import git, try_git
from tasks.runtime.records import RECORD, Record
from tasks.runtime.settings import settings

FILE = "erased.json"
SHOWN = 3


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Erasures(Record):
    """What was erased of a product."""

    erased: tuple[str, ...] = field(default_factory=tuple)
    """Keyed hashes, as decisions/<product>/erased.json has them."""
    revision: str = ""
    """The origin's newest commit when something was erased last: a person may have let something in again since."""
    objects: tuple[str, ...] = field(default_factory=tuple)
    """The hashes of data that are gone, as dvc.lock files name them."""
    models: tuple[str, ...] = field(default_factory=tuple)
    """The hashes of exported models that have learnt from rows that are gone."""


def reference(product: str) -> str:
    """Return the reference of a product."""
    return f"refs/erasures/{product}"


def read_erasures(product: str, folder: Path) -> tuple[Erasures, str]:
    """Return what the origin says, and its commit, brought into an empty folder; nothing where it says nothing."""
    git("init", "--quiet", "--bare", str(folder))
    found = git("ls-remote", settings().origin, reference(product)).split()
    if not found:
        return Erasures(), ""
    git("fetch", "--quiet", "--no-tags", settings().origin, f"+{found[1]}:{found[1]}", cwd=folder)
    return Erasures.from_json(git("show", f"{found[0]}:{FILE}", cwd=folder)), found[0]


def write_erasures(product: str, erasures: Erasures, before: str, folder: Path) -> None:
    """Move the reference, in the folder that `read_erasures` has filled, from the commit that was read."""
    file = folder / "written"
    write_json(file, erasures.to_json())
    blob = git("hash-object", "-w", str(file), cwd=folder).strip()
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},{FILE}", cwd=folder)
    tree = git("write-tree", cwd=folder).strip()
    person = ("-c", "user.name=lamplighter", "-c", "user.email=lamplighter@localhost")
    parents = ["-p", before] if before else []
    commit = git(*person, "commit-tree", tree, *parents, "-m", "erased", cwd=folder).strip()
    lease = f"--force-with-lease={reference(product)}:{before}"
    git("push", "--quiet", lease, settings().origin, f"{commit}:{reference(product)}", cwd=folder)


def erasures_of(product: str) -> Erasures:
    """Return what was erased of a product."""
    with tempfile.TemporaryDirectory() as folder:
        return read_erasures(product, Path(folder))[0]


def check_knows(product: str, clone: Path, origin_commit: str, name: str) -> None:
    """Raise UserError where rows were erased since a run was opened, of which its own revision does not know.

    `origin_commit` is where the origin's reference is now.
    """
    git("fetch", "--quiet", "--no-tags", settings().origin, origin_commit, cwd=clone)
    erasures = Erasures.from_json(git("show", f"{origin_commit}:{FILE}", cwd=clone))
    known = {each.hmac for each in Tombstones.read(clone / file_of(product)).erased}
    is_later = erasures.revision and (
        try_git("merge-base", "--is-ancestor", erasures.revision, "HEAD", cwd=clone) is not None
    )
    if {*erasures.erased} - known and not is_later:
        raise UserError(
            f"{name}: a person has had rows of {product} erased since this run was opened, and it may have read them: "
            "it ends here, and saves nothing; start a new run"
        )


def about_erased(product: str, hashes: Iterable[str]) -> str:
    """Return a line about data that are gone on purpose; nothing where none of these are. Never raises for git."""
    if try_git("ls-remote", settings().origin, "HEAD") is None:
        return ""
    gone = {*erasures_of(product).objects} & {*hashes}
    if not gone:
        return ""
    named = ", ".join(sorted(gone)[:SHOWN]) + (", ..." if len(gone) > SHOWN else "")
    return (
        f"{len(gone)} of its files and folders ({named}) held rows that a person has had erased (make erase), and are "
        "gone for good"
    )
