"""Name what the tasks take and make as assets, so that Airflow's own graph shows how data becomes predictions.

`lamplighter://<product>/source`, `raw`, `model` and `predictions`. Each event says what lists the asset (`manifest`),
its `rows` and its `version`: one of `source` what was delivered, one of `raw` what is stored since, one of `model`
which one has become the champion, and one of `predictions` which night is published. Nothing is started by them: a run
that an asset starts has no date of its own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetAlias, get_current_context


def asset(product: str, name: str) -> Asset:
    """Return an asset of a product."""
    return Asset(name=f"{product}/{name}", uri=f"lamplighter://{product}/{name}")


def champions(product: str) -> AssetAlias:
    """Return what `promote` may make: the asset `model`, where the new one becomes the champion, and else nothing."""
    return AssetAlias(name=f"{product}/champions")


def of_stage(product: str, stage: str) -> dict[str, list[Asset | AssetAlias]]:
    """Return the inlets and outlets of a task, as options of the operator."""
    inlets = {"validate": ["raw"], "pretrain": ["raw"]}.get(stage, [])
    made = {"ingest": ["source", "raw"], "publish": ["predictions"]}.get(stage, [])
    outlets: list[Asset | AssetAlias] = [asset(product, name) for name in made]
    outlets += [champions(product)] * (stage == "promote")
    found: dict[str, list[Asset | AssetAlias]] = {"inlets": [asset(product, name) for name in inlets]}
    return {name: each for name, each in {**found, "outlets": outlets}.items() if each}


def note(run: Any, stage: str, fields: Mapping[str, Any], line: str) -> None:
    """Note on the events of a task what it has made; an event without a note is better than a task that fails."""
    from tasks.monitoring.facts import delivery_facts, model_facts, night_facts
    from tasks.runs.experiments import Run

    try:
        product, workspace = run["product"], Run.from_json(run).workspace
        facts = {"as_of": run["as_of"], "experiment": run["name"]}
        events = get_current_context()["outlet_events"]
        if stage == "ingest":
            version = version_of_raw(product, workspace)
            delivered, raw = delivery_facts(product, run["as_of"], workspace, version)
            events[asset(product, "source")].extra = {**facts, **delivered, "line": line}
            events[asset(product, "raw")].extra = {**facts, **raw, "line": line}
        elif stage == "publish":
            events[asset(product, "predictions")].extra = {**facts, **night_facts(product, run["as_of"])}
        elif stage == "promote" and fields.get("decision") == "promoted":
            made = {**facts, **model_facts(product, fields, workspace), "line": line}
            events[champions(product)].add(asset(product, "model"), extra=made)
    except Exception as error:
        print(f"the asset's event has no note: {type(error).__name__}", flush=True)


def version_of_raw(product: str, workspace: Path) -> str:
    """Return the hash by which DVC knows the raw data of a workspace."""
    from tasks.runs.dvc import DvcLock
    from tasks.runtime.paths import DATA, Paths

    return DvcLock.of(workspace).outs(f"ingest@{product}")[str(Paths(product, root=DATA).raw)]
