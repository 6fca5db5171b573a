"""Do the steps of a simulation in their order, each as the DAGs do it, and keep what each of them came to.

A step that was killed is done again: its run has the same name, finds what it has saved, and makes it no second time.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import date

from tasks import STAGES
from tasks.commands.nights.backfill import Asked, make_night, shortened, tried_again
from tasks.commands.simulation.contracts import Outcome, Plan, State, Step
from tasks.commands.simulation.home import Home
from tasks.params import Product
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.runs.experiments import head
from tasks.runs.gates.verdict import Verdict
from tasks.runs.registry.champions import champion
from tasks.runs.steps import open_run, step
from tasks.runs.workspace import saved_commit
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.results import Result, read_result, result_file

UNIQUE = "simulation"
"""What distinguishes the runs of a simulation from others of their date: all are in a repository of their own."""
APPROVER = "the simulation"
"""Whoever is asked where gates.approval wants a human."""


def replay(home: Home, plan: Plan) -> None:
    """Do all steps that have not been done. Raises TransientError where the store or git does not answer for long."""
    product, done = head()[1].product(plan.product), home.outcomes()
    clock = Clock(plan, done)
    while rest := steps_left(plan, clock.done):
        each = rest[0]
        with logged(home):
            outcome = do_step(product, each)
        faults.failpoint(f"simulate: the {each.kind} of {each.as_of} is done")
        home.add(outcome)
        clock.show(outcome)
        if each == plan.steps[0] and outcome.state != "promoted":
            raise UserError(
                f"the model of {each.as_of} must be promoted to be the first champion, and is not: {outcome.reason}; "
                f"see {home.log}, mend it, and delete {home.folder} to begin anew"
            )


def steps_left(plan: Plan, done: list[Outcome]) -> list[Step]:
    """Return the steps that are to be done: those planned, and after a night that asks for it a training of its as_of.

    A training that is due by the schedule with this as_of is that training.
    """
    planned = {step.as_of for step in plan.steps if step.kind == "retrain"}
    asked = {each.as_of for each in done if each.kind == "night" and each.decay} - planned
    steps = []
    for each in plan.steps:
        steps.append(each)
        if each.kind == "night" and each.as_of in asked:
            steps.append(Step(kind="retrain", as_of=each.as_of))
    return steps[len(done) :]


def do_step(product: Product, asked: Step) -> Outcome:
    """Do one step and return what it came to; what only a person can mend stops the step, as it stops a run."""
    started = time.monotonic()
    try:
        outcome = retrain(product, asked.as_of) if asked.kind == "retrain" else night(product, asked.as_of)
    except UserError as error:
        reason = shortened(str(error), most=400)
        outcome = Outcome(kind=asked.kind, as_of=asked.as_of, state="stopped", seconds=0, reason=reason)
        print(error, flush=True)
    leader = champion(product.name)
    seconds = round(time.monotonic() - started, 2)
    return replace(outcome, seconds=seconds, champion=leader.version if leader else None)


@tried_again
def retrain(product: Product, as_of: date) -> Outcome:
    """Train, evaluate, export and promote, as train__<product> does. Raises as a stage of it does."""
    run = open_run(product.name, "train", as_of.isoformat(), UNIQUE)
    for stage in STAGES[:-1]:
        step(run, stage)
    approver = APPROVER if product.gates.approval == "human" else None
    verdict = Verdict.from_json(step(run, "promote", approver).fields)
    commit = saved_commit(run)
    state: State = verdict.decision
    leader = champion(product.name)
    if state == "champion already" and leader and leader.as_of == as_of.isoformat():
        state, commit = "promoted", leader.commit  # by the try that was killed before it could say so
    return Outcome(kind="retrain", as_of=as_of, state=state, seconds=0, reason=verdict.line, commit=commit)


def night(product: Product, as_of: date) -> Outcome:
    """Make a night, as predict__<product> does. Raises as a stage of it does."""
    run = make_night(Asked(product=product.name, as_of=as_of, unique=UNIQUE, tidies=False))
    manifest = current_manifest(NightPlace(store=Store(product.publish.url), product=product.name, as_of=as_of))
    assert manifest is not None
    place = result_file(product.name, "monitor", run.workspace)
    observed = (read_result(place) if place else None) or Result(status="done")
    rollback = observed.fields.get("rollback")
    held = [f"held: {', '.join(map(str, manifest.held))}"] if manifest.held else []
    return Outcome(
        kind="night",
        as_of=as_of,
        state="published",
        seconds=0,
        reason="; ".join([*held, *([str(rollback)] if rollback else [])]),
        decay=str(observed.fields.get("retrain") or ""),
        commit=manifest.model.commit,
        scored_day=manifest.scored_day,
        rows=manifest.rows.published,
        quarantined=manifest.rows.quarantined,
        parts=tuple(part.sha256 for part in manifest.parts),
    )


@contextmanager
def logged(home: Home) -> Iterator[None]:
    """Append what is printed to the log of the simulation."""
    with home.log.open("a", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(out):
        yield


class Clock:
    """The progress of a simulation, and an estimate of the time that is left."""

    WIDTH = 24

    def __init__(self, plan: Plan, done: list[Outcome]) -> None:
        self.plan, self.done = plan, list(done)
        print(f"{len(done)} of {len(plan.steps)} steps are done", flush=True)

    def seconds_left(self) -> float:
        """Return how long the rest takes if each step takes as long as the newest of its kind did."""
        total = 0.0
        for kind in ("retrain", "night"):
            seconds = [each.seconds for each in self.done if each.kind == kind][-10:]
            n_left = sum(each.kind == kind for each in steps_left(self.plan, self.done))
            total += n_left * (sum(seconds) / len(seconds) if seconds else 0)
        return total

    def show(self, outcome: Outcome) -> None:
        """Print a line about a step: in place of the one before it where a person looks on."""
        self.done.append(outcome)
        n = len(self.done)
        of = n + len(steps_left(self.plan, self.done))
        bar = ("#" * (n * self.WIDTH // of)).ljust(self.WIDTH, ".")
        came_to = (
            f"{outcome.kind} {outcome.as_of} {outcome.state}, champion {outcome.champion}, {outcome.seconds:.0f} s"
        )
        line = f"[{bar}] {n}/{of}  {came_to}; about {self.seconds_left() / 60:.0f} min left"
        if not sys.stdout.isatty():
            print(line, flush=True)
            return
        remarkable = outcome.kind == "retrain" or outcome.state == "stopped"
        print(f"\r\x1b[K{line}", end="\n" if remarkable or n == of else "", flush=True)
