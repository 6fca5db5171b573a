"""Publish the night in data/predictions/<product> to the object store, whole or not at all.

    <url>/<product>/dt=D/run=<run>/part-00000.parquet ...   immutable
    <url>/<product>/dt=D/run=<run>/manifest.json            immutable: the history
    <url>/<product>/dt=D/_manifest.json                     the commit point: one conditional PUT
    <url>/<product>/_latest.json                            pointer to the newest night; never moves back

D is as_of. `run` is the hash of everything that went into the night, so that publishing the same night again
changes nothing, and another night of the same date can only stand beside it, then take its place in one step.
Not a stage of dvc.yaml, because it is a side effect.
"""

import json
import os
import subprocess
import uuid
from datetime import date
from typing import Any

from tasks import stage
from tasks.errors import PassingError, UserError
from tasks.files import file_sha256, read_json
from tasks.params import Product
from tasks.paths import Paths
from tasks.store import Store

FORMAT = 1
MANIFEST, LATEST = "_manifest.json", "_latest.json"
ATTEMPTS = 8


def publish(product: Product, as_of: date) -> str:
    """Upload the parts, then move the manifest and the pointer; returns what a person wants to read of it.

    Raises UserError where the parts are not those of night.json or rows do not reconcile, PassingError where
    the store does not answer or other writers keep winning.
    """
    night = _verified_night(product, as_of)
    store = Store(product.publish.url)
    place = night_key(product.name, as_of)
    keys = [part_key(product.name, as_of, night["run"], part["name"]) for part in night["parts"]]
    parts = [{**part, "key": store.full_key(key)} for part, key in zip(night["parts"], keys, strict=True)]
    for part, key in zip(parts, keys, strict=True):
        store.create_file(key, Paths(product.name).predictions / part["name"])
    manifest = _manifest(product, as_of, night, parts)
    moved = _commit(store, place, manifest)
    _point_forward(store, product.name, as_of, manifest["run"], store.uri(f"{place}/{MANIFEST}"))
    rows = manifest["rows"]
    done = "published" if moved else "stood there already, unchanged"
    return f"{rows['published']:,} predictions in {len(parts)} parts {done}: {store.uri(f'{place}/{MANIFEST}')}"


def night_key(product: str, as_of: date) -> str:
    """The folder of one night."""
    return f"{product}/dt={as_of.isoformat()}"


def part_key(product: str, as_of: date, run: str, name: str) -> str:
    """The key of one part file."""
    return f"{night_key(product, as_of)}/run={run}/{name}"


def _verified_night(product: Product, as_of: date) -> dict[str, Any]:
    """night.json, after every part has been hashed again and the rows have been added up."""
    folder = Paths(product.name).predictions
    if not (folder / "night.json").exists():
        raise UserError(f"{folder}/night.json must exist, and does not; run dvc repro predict@{product.name}")
    night: dict[str, Any] = read_json(folder / "night.json")
    if night["as_of"] != as_of.isoformat():
        raise UserError(
            f"{folder}/night.json must be of as_of {as_of}, and is of {night['as_of']}; "
            f"run dvc repro predict@{product.name}"
        )
    for part in night["parts"]:
        if not (folder / part["name"]).exists() or file_sha256(folder / part["name"]) != part["sha256"]:
            raise UserError(
                f"{folder / part['name']} must be as night.json says, and is not; "
                f"run dvc repro --force predict@{product.name}"
            )
    rows = night["rows"]
    in_parts = sum(part["rows"] for part in night["parts"])
    if rows["in"] != rows["published"] + rows["quarantined"] or rows["published"] != in_parts:
        raise UserError(
            f"{folder}/night.json: rows in must be published plus quarantined, got {rows} and {in_parts} "
            "in the parts; report this as a bug"
        )
    return night


def _manifest(product: Product, as_of: date, night: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "product": product.name,
        "dt": as_of.isoformat(),
        **night,
        "parts": parts,
        "experiment": os.environ.get("LAMPLIGHTER_RUN"),
        "git_revision": _git_revision(),
        "model": {**night["model"], "version": os.environ.get("LAMPLIGHTER_MODEL_VERSION")},
        "writer": uuid.uuid4().hex,
        "supersedes": None,
    }


def _commit(store: Store, place: str, manifest: dict[str, Any]) -> bool:
    """Make `manifest` the night's; False where a manifest of the same inputs stands there already."""
    copy = f"{place}/run={manifest['run']}/manifest.json"
    for _ in range(ATTEMPTS):
        standing = store.read(f"{place}/{MANIFEST}")
        if standing is not None and standing.json()["run"] == manifest["run"]:
            _settle(store, copy, standing.body)
            return bool(standing.json()["writer"] == manifest["writer"])
        ours = {**manifest, "supersedes": standing.json()["run"] if standing else None}
        body = _bytes(ours)
        # The copy first: once the manifest has moved on, the history must hold what it said.
        store.replace(copy, body, store.read(copy))
        if store.replace(f"{place}/{MANIFEST}", body, standing):
            _settle(store, copy, body)
            return True
    raise PassingError(f"{store.uri(place)}: other writers moved the manifest {ATTEMPTS} times while we tried")


def _settle(store: Store, copy: str, body: bytes) -> None:
    """Make the copy say what the manifest says: another publisher of the same inputs may have left its own there."""
    for _ in range(ATTEMPTS):
        standing = store.read(copy)
        if standing is not None and standing.body == body:
            return
        store.replace(copy, body, standing)
    raise PassingError(f"{store.uri(copy)}: other writers replaced the copy {ATTEMPTS} times while we tried")


def _point_forward(store: Store, product: str, as_of: date, run: str, manifest_uri: str) -> None:
    """Move the pointer to this night, unless it points to a later one."""
    body = _bytes({"format": FORMAT, "product": product, "dt": as_of.isoformat(), "run": run, "manifest": manifest_uri})
    for _ in range(ATTEMPTS):
        standing = store.read(f"{product}/{LATEST}")
        if standing is not None and (standing.body == body or standing.json()["dt"] > as_of.isoformat()):
            return
        if store.replace(f"{product}/{LATEST}", body, standing):
            return
    pointer = store.uri(f"{product}/{LATEST}")
    raise PassingError(f"{pointer}: other writers moved the pointer {ATTEMPTS} times while we tried")


def _bytes(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _git_revision() -> str:
    """The code that is checked out here."""
    answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise UserError(
            "publish must run in a git repository, and git finds none; a manifest names the code's revision"
        )
    return answer.stdout.strip()


if __name__ == "__main__":
    stage.main(publish)
