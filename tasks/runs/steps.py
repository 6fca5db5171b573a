"""What the tasks of a DAG do: open a run, do its stages, score its shards, bring them together.

Each function may start on any disk and leaves the next one nothing but what it handed on: see
`tasks.runs.workspace`. The run passes through XCom as a small dict; data never does.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tasks import STAGES, params
from tasks.publication import manifests
from tasks.publication.conditional_writes import probe_once
from tasks.publication.object_store import Store
from tasks.runs.dvc import call, dvc
from tasks.runs.experiments import Run, head
from tasks.runs.registry import champion, mirror
from tasks.runs.workspace import exclusive_workspace, save_and_push, saved_commit, shared_workspace
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths


def open_run(
    product: str, kind: str, as_of: str, unique: str, *, shards: int | None = None, force: bool = False
) -> Run:
    """A new run at the head of the origin. `unique` tells runs of one as_of apart; a retry gives it again, and gets
    the same run again as long as head and champion are the same.

    Raises UserError for a date that is none or has not come, an unknown product, no champion to predict with, or a
    store to which no night can be published safely.
    """
    known = parse_as_of(as_of)
    revision, everything = head()
    declared = everything.product(product)
    leader = champion(product, by=known) if kind == "predict" else None
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
    )
    if leader is None:
        return run
    store = Store(declared.publish.url)
    probe_once(store)
    generation = manifests.acquire_generation(store, product, known, run.name)
    return replace(run, champion=leader.commit, model_version=leader.version, generation=generation)


def parse_as_of(text: str) -> date:
    """The date that a person, or a schedule, asks for. Raises UserError for one that is none or has not come."""
    try:
        as_of = params.parse_date(text)
    except ValueError as error:
        raise UserError(f"as_of {error}; write it like 2013-06-30") from None
    if as_of > datetime.now(UTC).date() + timedelta(days=1):  # where the sun rises it is tomorrow already
        raise UserError(f"as_of must have come, got {text}; until then its night would be the newest; correct it")
    return as_of


def step(run: Run, name: str, approver: str | None = None) -> str:
    """Restore, do one stage (or publish, gc or promote) in the workspace, and hand on; returns the last line it said.

    `approver` is who let a model through, where gates.approval asks for a human.
    """
    print(f"\n{run.name} ▸ {name}", flush=True)
    with exclusive_workspace(run, name):
        if name in STAGES:
            said = dvc(
                run, "--wait-for-lock", "repro", "--single-item", *["--force"] * run.force, f"{name}@{run.product}"
            )
            if any("skipping" in line for line in said):
                print(f"{name}: reused, because nothing that it depends on has changed", flush=True)
            save_and_push(run, name)
        else:
            os.environ["LAMPLIGHTER_COMMIT"] = saved_commit(run)
            if approver:
                os.environ["LAMPLIGHTER_APPROVER"] = str(approver)  # a name of digits comes as a number
            said = call(run, [sys.executable, "-m", f"tasks.{name}", run.product])
    return next((line for line in reversed(said) if line), "")


def shard(run: Run, number: int) -> dict[str, Any]:
    """Score one shard and put its part where the night will be.

    Returns what `predict_shard` says of it, and its key in the store.
    """
    print(f"\n{run.name} ▸ predict, shard {number + 1} of {run.shards}", flush=True)
    with shared_workspace(run, "predict"):
        printed = call(run, [sys.executable, "-m", "tasks.predict", run.product, "--shard", str(number)], quietly=True)
        part: dict[str, Any] = json.loads(next(line for line in reversed(printed) if line.startswith("{")))
        faults.failpoint("shard: a part is scored")
        store = Store(_product(run).publish.url)
        key = find_published_part(store, run, part)
        if key is None:
            assert run.generation is not None
            key = manifests.part_key(
                run.product, date.fromisoformat(run.as_of), part["run"], run.generation, part["name"]
            )
            store.create_file(key, run.workspace / Paths(run.product).predictions / part["name"])
        faults.failpoint("shard: a part is uploaded")
        print(f"{part['rows']:,} rows: {store.uri(key)}", flush=True)
        return {**part, "key": key}


def find_published_part(store: Store, run: Run, part: dict[str, Any]) -> str | None:
    """Where this very part stands already, as part of the night that was published of the same inputs."""
    night = manifests.current_manifest(store, run.product, date.fromisoformat(run.as_of))
    same = night["parts"] if night and night["run"] == part["run"] else []
    keys = [store.key_of(each["key"]) for each in same if each["sha256"] == part["sha256"]]
    return next((key for key in keys if key.endswith(f"/{part['name']}")), None)


def collect(run: Run, parts: Sequence[dict[str, Any]]) -> None:
    """Bring the shards' parts together as the outs of the stage `predict`, each verified, and hand on.

    Raises UserError where shards scored different inputs or a part is not as its shard said.
    """
    from tasks.publication.night import write_night
    from tasks.runtime.files import atomic_folder, file_sha256

    runs = {part["run"] for part in parts}
    if len(parts) != run.shards or len(runs) != 1:
        raise UserError(
            f"{run.name}: all {run.shards} shards must score the same inputs, got {len(parts)} shards with {len(runs)} "
            "kinds of inputs (data, model, engine or processor differ); clear the mapped tasks to score again"
        )
    with exclusive_workspace(run, "predict"), chdir(run.workspace):
        product, as_of = _product(run), date.fromisoformat(run.as_of)
        store = Store(product.publish.url)
        with atomic_folder(Paths(run.product).predictions) as folder:
            for part in parts:
                there = store.download(part["key"], folder / part["name"])
                if not there or file_sha256(folder / part["name"]) != part["sha256"]:
                    raise UserError(
                        f"{run.name}: {part['name']} must be in the store as its shard left it, and is not; "
                        "clear the mapped task to score it again"
                    )
            described = [{name: part[name] for name in ("name", "rows", "bytes", "sha256")} for part in parts]
            write_night(product, as_of, parts[0]["inputs"], described, folder)
        faults.failpoint("collect: the night is written")
        save_and_push(run, "predict")


def _product(run: Run) -> params.Product:
    return params.load(run.workspace / params.PARAMS_FILE).product(run.product)
