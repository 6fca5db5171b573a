"""Do what the tasks of a DAG do: open a run, run its stages, score its shards, collect them.

Each function may start on any disk and leaves the next one nothing but what it has saved and pushed: see
`tasks.runs.workspace`. The run passes through XCom as a small record; data never does.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tasks import STAGES, params
from tasks.monitoring.telemetry import traced
from tasks.publication import manifests
from tasks.publication.contracts import Part, ScoredPart, UploadedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.store_check import check_store_once
from tasks.runs.dates import Backfill
from tasks.runs.dvc import dvc, run_command, run_stage
from tasks.runs.experiments import Run, head, saved_in_origin
from tasks.runs.locks import locked
from tasks.runs.registry import versions
from tasks.runs.registry.champions import champion, mirror
from tasks.runs.upstream import PREDICT_STAGES
from tasks.runs.workspace import (
    NIGHT,
    check_model,
    exclusive_workspace,
    save_and_push,
    saved_commit,
    shared_workspace,
)
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.files import write_json
from tasks.runtime.log_lines import tell_of
from tasks.runtime.paths import DATA, Paths
from tasks.runtime.results import Result

COMMANDS_OF_RUN = ("publish", "promote")
"""The commands that need the facts of the run."""
RUN_FILE = Path(".lamplighter") / "run.json"
"""The file in a workspace by which such a command gets them."""


def open_run(
    product: str,
    kind: str,
    as_of: str,
    unique: str,
    *,
    shards: int | None = None,
    force: bool = False,
    backfill: Backfill | None = None,
) -> Run:
    """Open a run at the head of the origin.

    `unique` distinguishes runs of one as_of; a retry gives it again, and gets the same run again as long as head and
    champion are the same. Raises UserError for a date that is none, has not come or is after the end of the
    data, an unknown product, no champion to predict with, or a store to which no night can be published safely.
    """
    known = parse_as_of(as_of)
    revision, everything = head()
    declared = everything.product(product)
    _check_data_go_on(declared, known)
    leader = champion(product, trained_until=known) if kind == "predict" else None
    if kind == "predict" and leader is None:
        mirror(declared)  # a person may have withdrawn the last one, and no night will say so
        raise UserError(
            f"products.{product}: a model that knows nothing later than {as_of} must have been promoted, and none has; "
            f"run the DAG train__{product} with that as_of, and read the log of its task promote"
        )
    # Opened again after a commit or a promotion it is another run: no workspace may hold something of both.
    decides = json.dumps([unique, revision, leader and leader.commit])
    run = Run(
        name=f"{product}-{as_of}-{kind}-{hashlib.sha256(decides.encode()).hexdigest()[:8]}",
        product=product,
        as_of=as_of,
        revision=revision,
        shards=shards or declared.predict.shards,
        force=force,
        # Of a product without time the date of a row is that of the run that first saw it.
        backfill=backfill.number if backfill and declared.time else None,
        backfill_until=backfill.until if backfill and declared.time else None,
    )
    if leader is None:
        return run
    store = Store(declared.publish.url)
    check_store_once(store)
    place = NightPlace(store=store, product=product, as_of=known)
    generation = manifests.acquire_generation(place, run.name)
    return replace(run, champion=leader.commit, model_version=leader.version, generation=generation)


def standing_night(product: str, as_of: str) -> str | None:
    """Return a line on the night that the store has of a date; None where it is missing. Raises as `open_run` does."""
    known = parse_as_of(as_of)
    declared = head()[1].product(product)
    night = manifests.current_manifest(NightPlace(store=Store(declared.publish.url), product=product, as_of=known))
    if night is None:
        return None
    state = "was withdrawn by a person" if night.withdrawn else "is published"
    return (
        f"the night of {as_of} {state} (run {night.run}), and a backfill makes what is missing: it is left alone; to "
        'make it anew, clear this task, or give the backfill {"force": true}'
    )


def opened_run(record: object) -> Run:
    """Return the run that the task `start` has opened. Raises UserError where it left none."""
    if not isinstance(record, dict):
        raise UserError(
            "the task start must have opened the run, and has left nothing: was it marked successful? clear start with "
            "all that follows it"
        )
    return Run.from_json(record)


def parse_as_of(text: str) -> date:
    """Return the date that a person, or a schedule, asks for. Raises UserError for one that is none or has not come."""
    try:
        as_of = params.parse_date(text)
    except ValueError as error:
        raise UserError(f"as_of {error}; write it like 2013-06-30") from None
    if as_of > datetime.now(UTC).date() + timedelta(days=1):  # east of here it is tomorrow already
        raise UserError(f"as_of must have come, got {text}; until then its night would be the newest; correct it")
    return as_of


def _check_data_go_on(product: params.Product, as_of: date) -> None:
    """Refuse a run of a day that a source which ends has no rows of. Raises UserError."""
    last = product.last_as_of
    if last and as_of > last:
        raise UserError(
            f"products.{product.name}.source.ends: the data end on {product.source.ends}, and a run of {as_of} would "
            f"find no rows of {product.scored_day(as_of)}; trigger it with an as_of up to {last}, or delete ends where "
            "the data go on"
        )


def step(run: Run, name: str, approver: str | None = None, approved: str | None = None) -> Result:
    """Restore the workspace, do one stage (or publish, monitor, gc or promote) in it, save it, and return its result.

    `approver` is the person who lets a model through, where gates.approval asks for a human, and `approved` the name of
    the figures that this person was shown.
    """
    if name == "ingest" and run.backfill is not None:
        run = replace(run, raw_commit=raw_data_of_backfill(run))
    with _traced(run, name) as results, exclusive_workspace(run, name):
        results.append(_stage(run, name) if name in STAGES else _command(run, name, approver, approved))
        if name in STAGES:
            save_and_push(run, name)
        return results[-1]


def raw_data_of_backfill(run: Run) -> str | None:
    """Return the commit with the raw data of all nights of the run's backfill; the first to need it asks the source.

    It is a run of its own, as of the last night: whoever comes second waits for the first, on another machine finds
    what that has saved. None where the source is refused up to the last night: each night says so where it is true of
    it as well.
    """
    assert run.backfill_until is not None
    decides = json.dumps(["backfill", run.backfill, run.revision, run.force])
    shared = Run(
        name=f"{run.product}-{run.backfill_until}-predict-{hashlib.sha256(decides.encode()).hexdigest()[:8]}",
        product=run.product,
        as_of=run.backfill_until,
        revision=run.revision,
        shards=run.shards,
        force=run.force,
    )
    if saved := saved_in_origin(shared):
        return saved
    try:
        with locked(shared.workspace.with_suffix(".backfill-lock")):
            if saved := saved_in_origin(shared):
                return saved
            step(shared, "ingest")
            return saved_commit(shared)
    except UserError as error:
        print(f"the source is asked for this night by itself, since {error}", flush=True)
        return None


def night(run: Run) -> None:
    """Do the steps of predict__<product> but gc in one go: restored once, and saved once before it is published.

    Where a stage stops, those before it are saved, as tasks of their own would have been.
    """
    done: list[str] = []
    tell_of(product=run.product, as_of=run.as_of, stage=NIGHT, run=run.name)
    with exclusive_workspace(run, NIGHT):
        try:
            for name in PREDICT_STAGES:
                with _traced(run, name) as results:
                    if name == "predict":
                        check_model(run)
                    results.append(_stage(run, name))
                done.append(name)
        except UserError:
            if done:
                save_and_push(run, *done)
            raise
        faults.failpoint("night: the stages are done")
        save_and_push(run, *done)
        for name in ("publish", "monitor"):
            with _traced(run, name) as results:
                results.append(_command(run, name))


def _traced(run: Run, name: str, shown: str = "") -> AbstractContextManager[list[Result]]:
    """Begin a step: what is printed and told to collectors from here on is of it."""
    tell_of(product=run.product, as_of=run.as_of, stage=name, run=run.name)
    print(f"\n{run.name} ▸ {shown or name}", flush=True)
    return traced(run.product, run.as_of, run.name, name)


def _stage(run: Run, name: str) -> Result:
    result = run_stage(run, name)
    if result.status == "reused":
        print(f"{name}: reused, because nothing that it depends on has changed", flush=True)
    return result


def _command(run: Run, name: str, approver: str | None = None, approved: str | None = None) -> Result:
    command = [sys.executable, "-m", f"tasks.{name}", run.product]
    if name in COMMANDS_OF_RUN:
        facts = replace(run, commit=saved_commit(run), approver=approver or None, approved=approved)
        write_json(run.workspace / RUN_FILE, facts.to_json())
        command += ["--run", str(RUN_FILE)]
    return run_command(run, name, command)


def roll_back(product: str, version: str, reason: str, person: str) -> str:
    """Make another version the champion in a person's name, and bring its mirror up to date; return a line.

    Another try of the same says the same. Raises UserError as `tasks.runs.registry.versions.roll_back` does.
    """
    before, now = versions.roll_back(product, version, reason, (person, f"{person}@airflow"))
    mirror(head()[1].product(product))
    return versions.about_rollback(product, before, now)


def check_answered(result: Result) -> None:
    """Raise UserError where a model waits for a person, and the task that asks has come and gone without an answer."""
    if result.fields.get("decision") == "needs approval":
        raise UserError(
            "the task approve must name the person who answered, and names none: was it marked successful? clear "
            "approve to be asked again, or trigger the run anew with an approver"
        )


def validated_shards(run: Run) -> list[int]:
    """Do the stage validate; return the numbers of the shards that the night's rows ask for."""
    from tasks.publication.scoring import n_shards

    step(run, "validate")
    return list(range(n_shards(_product(run), date.fromisoformat(run.as_of), _paths(run))))


def shard(run: Run, number: int) -> UploadedPart:
    """Score one shard and upload its part to its place in the night; return the part with its key."""
    command = [sys.executable, "-m", "tasks.predict", run.product, "--shard", str(number)]
    with _traced(run, f"predict-shard-{number}", f"predict, shard {number + 1}"), shared_workspace(run, "predict"):
        result = run_command(run, f"predict-shard-{number}", command, quietly=True)
        part = ScoredPart.from_json(result.fields)
        faults.failpoint("shard: a part is scored")
        place = _place(run)
        key = find_published_part(place, part)
        if key is None:
            assert run.generation is not None
            key = place.part(part.run, run.generation, part.name)
            place.store.create_file(key, _predictions(run) / part.name)
        faults.failpoint("shard: a part is uploaded")
        print(f"{part.rows:,} rows: {place.store.uri(key)}", flush=True)
        return UploadedPart.from_json({**part.to_json(), "key": key})


def find_published_part(place: NightPlace, part: ScoredPart) -> str | None:
    """Return the key of this very part where the night of the same inputs has been published already."""
    night = manifests.current_manifest(place)
    same = night.parts if night and night.run == part.run else ()
    keys = [place.store.key_of(each.key) for each in same if (each.name, each.sha256) == (part.name, part.sha256)]
    return next(iter(keys), None)


def collect(run: Run, parts: Sequence[UploadedPart]) -> None:
    """Bring the shards' parts together as the outs of the stage `predict`, each verified; save and push them.

    Raises UserError where shards scored different inputs or a part is not as its shard described it.
    """
    from tasks.publication.night import write_night
    from tasks.runtime.files import atomic_folder, file_sha256

    runs = {part.run for part in parts}
    if len(runs) > 1:
        raise UserError(
            f"{run.name}: all shards must score the same inputs, got {len(runs)} kinds of inputs (data, model, engine "
            "or processor differ); clear the mapped tasks to score again"
        )
    if not parts or len(parts) != parts[0].inputs.shards:
        shards = f"{parts[0].inputs.shards} shards" if parts else "shards"
        raise UserError(
            f"{run.name}: all {shards} must have been scored, and {len(parts)} have: were mapped tasks of predict, or "
            "validate, marked successful? clear the task validate with all that follows it"
        )
    with exclusive_workspace(run, "predict"):
        place = _place(run)
        with atomic_folder(_predictions(run)) as folder:
            for part in parts:
                scored = _predictions(run) / part.name
                if scored.exists() and file_sha256(scored) == part.sha256:  # by a shard of this machine
                    shutil.copyfile(scored, folder / part.name)
                    continue
                found = place.store.download(part.key, folder / part.name)
                if not found or file_sha256(folder / part.name) != part.sha256:
                    raise UserError(
                        f"{run.name}: {part.name} must be in the store as its shard left it, and is not; "
                        "clear the mapped task to score it again"
                    )
            described = [Part.from_json(part.to_json()) for part in parts]
            write_night(_product(run), place.as_of, parts[0].inputs, described, folder, _paths(run))
        faults.failpoint("collect: the night is written")
        dvc(run, "commit", "--force", "--no-relink", f"predict@{run.product}")
        save_and_push(run, "predict")


def _product(run: Run) -> params.Product:
    return params.load(run.workspace / params.PARAMS_FILE).product(run.product)


def _place(run: Run) -> NightPlace:
    store = Store(_product(run).publish.url)
    return NightPlace(store=store, product=run.product, as_of=date.fromisoformat(run.as_of))


def _paths(run: Run) -> Paths:
    return Paths(run.product, root=run.workspace / DATA)


def _predictions(run: Run) -> Path:
    return _paths(run).predictions
