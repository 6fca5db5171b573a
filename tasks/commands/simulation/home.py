"""Give a simulation a place of its own: a repository, workspaces, a cache, a DVC remote, and a prefix in the store.

    .lamplighter/simulations/<name>/   plan.json, journal.jsonl, log, repository/, remote/, cache/, runs/, models/
    s3://<bucket>/simulations/<name>/  the nights

The real champion, experiments, tags and nights are in other places, and nothing of a simulation reaches them.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks import params
from tasks.commands.simulation import feed
from tasks.commands.simulation.contracts import Fault, Outcome, Plan, Step
from tasks.commands.simulation.schedule import steps_of
from tasks.params import Product
from tasks.params.edit import Place, edited
from tasks.rows.intake.erased import VARIABLE, known_key
from tasks.runs.experiments import head
from tasks.runtime.errors import UserError
from tasks.runtime.files import write_json
from tasks.runtime.git import git
from tasks.runtime.settings import settings

FEED = "tasks.commands.simulation.feed:rows"
KEPT_OF_SOURCE = ("ends", "late_days", "complete")
"""What a source with a fault keeps of the entry of the one behind it; all else is that one's own affair."""
DVC_CONFIG = (
    "[core]\n    analytics = false\n    autostage = false\n    remote = store\n['remote \"store\"']\n    url = {}\n"
)
PERSON = ("-c", "user.name=lamplighter", "-c", "user.email=lamplighter@localhost")


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folder of a simulation."""

    folder: Path
    """Below the folder of this machine's other workspaces."""

    @property
    def plan(self) -> Path:
        """Return the file with the plan; it is there once the repository is complete."""
        return self.folder / "plan.json"

    @property
    def repository(self) -> Path:
        """Return the repository that the runs clone, and push experiments and tags to."""
        return self.folder / "repository"

    @property
    def log(self) -> Path:
        """Return the file with all that the stages print."""
        return self.folder / "log"

    @property
    def journal(self) -> Path:
        """Return the file with the outcome of each step, a line each."""
        return self.folder / "journal.jsonl"

    def outcomes(self) -> list[Outcome]:
        """Return what has been done; a line that was cut off by a kill is of a step that is done again."""
        lines = self.journal.read_text("utf-8").split("\n")[:-1] if self.journal.exists() else []
        return [Outcome.from_json(line) for line in lines]

    def add(self, outcome: Outcome) -> None:
        """Append what a step came to."""
        whole = "".join(json.dumps(each.to_json()) + "\n" for each in [*self.outcomes(), outcome])
        temporary = self.journal.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.journal)


def open_home(product: Product, first: date, last: date, fault: Fault | None, name: str = "") -> tuple[Home, Plan]:
    """Return the home of a simulation and its plan; it is made where there is none, and else goes on as it was planned.

    Raises UserError where the schedules ask for no night, or the data end before the last one.
    """
    name = name or "-".join([product.name, f"{first:%Y%m%d}", f"{last:%Y%m%d}", *([fault.kind] if fault else [])])
    home = Home(folder=settings().home / "simulations" / name)
    if home.plan.exists():
        plan = Plan.from_json(home.plan.read_bytes())
        if plan.fault != fault:
            raise UserError(f"{home.folder} must be of the same fault, and is of {plan.fault}; delete it to begin anew")
        return home, plan
    if product.last_as_of and last > product.last_as_of:
        raise UserError(f"TO must not be later than {product.last_as_of}, where the data end, got {last}; correct it")
    shutil.rmtree(home.folder, ignore_errors=True)  # of a try that was killed before it had planned
    home.folder.mkdir(parents=True)
    revision = _make_repository(home, product, name, fault)
    plan = Plan(
        product=product.name,
        first=first,
        last=last,
        revision=revision,
        steps=steps_of(product, first, last),
        fault=fault,
    )
    write_json(home.plan, plan.to_json())
    return home, plan


def planned_again(home: Home, plan: Plan, steps: tuple[Step, ...]) -> Plan:
    """Return the plan with other steps, as it is kept from now on."""
    plan = replace(plan, steps=steps)
    write_json(home.plan, plan.to_json())
    return plan


def _make_repository(home: Home, product: Product, name: str, fault: Fault | None) -> str:
    """Make the repository from the origin's newest commit, without its tags and experiments; return that commit."""
    revision, repository = head()[0], home.repository
    git("init", "--quiet", "--initial-branch", "main", str(repository))
    git("fetch", "--quiet", "--no-tags", settings().origin, "HEAD", cwd=repository)
    git("checkout", "--quiet", "-B", "main", "FETCH_HEAD", cwd=repository)
    file = repository / params.PARAMS_FILE
    entry = params.raw(file.read_text("utf-8"))["products"][product.name]
    bucket = urlsplit(product.publish.url).netloc
    apart = {"url": f"s3://{bucket}/simulations/{name}", "announce": None}
    changes: dict[Place, Any] = {("products", product.name, "publish"): {**entry.get("publish", {}), **apart}}
    if fault:
        write_json(repository / feed.FILE, {"products": {product.name: entry}, "fault": fault.to_json()})
        changes |= _behind_feed(product, entry)
    file.write_text(edited(file.read_text("utf-8"), changes), "utf-8")
    (repository / ".dvc" / "config").write_text(DVC_CONFIG.format(home.folder / "remote"), "utf-8")
    git("add", "--all", cwd=repository)
    git(*PERSON, "commit", "--quiet", "-m", f"Simulate {name}", cwd=repository)
    return revision


def _behind_feed(product: Product, entry: Mapping[str, Any]) -> dict[Place, Any]:
    """Return the changes that put the feed before a product's source. Raises UserError where it cannot stand there."""
    if not product.has_time or not product.has_key:
        raise UserError(f"products.{product.name} must have `key` and `time` for a fault of its source; declare them")
    kept = {name: entry["source"][name] for name in KEPT_OF_SOURCE if name in entry["source"]}
    place = ("products", product.name)
    changes: dict[Place, Any] = {(*place, "source"): {"kind": "python", "callable": FEED, **kept}}
    if product.target.source:
        target = {name: value for name, value in entry["target"].items() if name != "source"}
        changes[(*place, "target")] = target
    return changes


def fault_of(product: Product, kind: str, first: date, last: date, column: str = "") -> Fault:
    """Return a fault that happens in the middle of the nights, where a training is among its days if it concerns one.

    Raises UserError where its column is none of the product's numbers.
    """
    middle = first + timedelta(days=(last - first).days // 3)
    retrains = [step.as_of for step in steps_of(product, first, last) if step.kind == "retrain" and step.as_of > first]
    if kind == "poison":
        if not retrains:
            raise UserError(f"FAULT=poison needs a training between {first} and {last}; give FROM and TO further apart")
        return Fault(kind="poison", first=retrains[0], last=retrains[0])
    if kind == "shift":
        numbers = [name for name, kind in product.columns.items() if kind == "number"]
        if (column or "") not in ["", *numbers] or not numbers:
            raise UserError(f"COLUMN must be a number of products.{product.name}, got {column!r}; use one of {numbers}")
        return Fault(kind="shift", first=middle, last=middle + timedelta(days=2), column=column or numbers[0])
    days = {"feed": 3, "labels": 9}[kind]
    return Fault(kind=kind, first=middle, last=middle + timedelta(days=days - 1))  # type: ignore[arg-type]


@contextmanager
def entered(home: Home) -> Iterator[None]:
    """Work with the simulation's repository, workspaces and cache in place of this machine's own."""
    own = {
        "LAMPLIGHTER_ORIGIN": str(home.repository),
        "LAMPLIGHTER_HOME": str(home.folder),
        "LAMPLIGHTER_CACHE": str(home.folder / "cache"),
    }
    own |= {VARIABLE: key.decode()} if (key := known_key()) else {}  # what was erased stays away here, too
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
