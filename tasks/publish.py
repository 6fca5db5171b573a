"""Publish the night in data/predictions/<product> to the object store, whole or not at all.

The parts are uploaded first; then the manifest moves in one conditional PUT, and the pointer follows: see
`tasks.publication.manifests` for what lies where. Publishing the same night again changes nothing; another night of
the same date can only stand beside it, then take its place in one step. A run publishes under the generation that it
claimed when it was opened (LAMPLIGHTER_GENERATION); by hand, a new one is claimed here. Not a stage of dvc.yaml,
because it is a side effect.
"""

import os
import subprocess
import uuid
from datetime import date
from pathlib import Path
from typing import Any

from tasks import stage
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.object_store import Store
from tasks.runs import registry
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, read_json
from tasks.runtime.paths import Paths


def publish(product: Product, as_of: date) -> str:
    """Upload the parts, then move the manifest and the pointer; returns what a person wants to read of it.

    Raises UserError where the parts are not those of night.json, rows do not reconcile or a run opened later has
    published; PassingError where the store does not answer or other writers keep winning.
    """
    night = _verified_night(product, as_of)
    store = Store(product.publish.url)
    generation = int(
        os.environ.get("LAMPLIGHTER_GENERATION")
        or manifests.acquire_generation(store, product.name, as_of, f"by-hand-{uuid.uuid4()}")
    )
    faults.failpoint("publish: the generation is claimed")

    def make() -> dict[str, Any]:
        return _manifest(product, as_of, night, generation, _upload(store, product, as_of, night, generation))

    moved = manifests.commit(store, product.name, as_of, night["run"], generation, make)
    faults.failpoint("publish: the manifest has moved")
    manifests.advance_latest(store, product.name, as_of)
    faults.failpoint("publish: the pointer has moved")
    manifests.release_generations(store, product.name, as_of, generation)
    faults.failpoint("publish: the claim is settled")
    if os.environ.get("LAMPLIGHTER_MODEL_COMMIT"):  # a person may have gone back to another champion since its mirror
        registry.mirror(product)
    done = "published" if moved else "stood there already, unchanged"
    uri = store.uri(manifests.manifest_key(product.name, as_of))
    return f"{night['rows']['published']:,} predictions in {len(night['parts'])} parts {done}: {uri}"


def _upload(
    store: Store, product: Product, as_of: date, night: dict[str, Any], generation: int
) -> list[dict[str, Any]]:
    """Bring every part to its place; returns what the manifest says of them."""
    parts = []
    for part in night["parts"]:
        key = manifests.part_key(product.name, as_of, night["run"], generation, part["name"])
        store.create_file(key, Paths(product.name).predictions / part["name"])
        faults.failpoint("publish: a part is uploaded")
        parts.append({**part, "key": store.full_key(key)})
    return parts


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


def _manifest(
    product: Product, as_of: date, night: dict[str, Any], generation: int, parts: list[dict[str, Any]]
) -> dict[str, Any]:
    told, model_commit = os.environ.get, os.environ.get("LAMPLIGHTER_MODEL_COMMIT")
    return {
        "format": manifests.FORMAT,
        "product": product.name,
        "dt": as_of.isoformat(),
        **night,
        "parts": parts,
        "generation": generation,
        "supersedes": None,
        "experiment": told("LAMPLIGHTER_RUN"),
        "experiment_commit": told("LAMPLIGHTER_COMMIT"),
        "git_revision": _git_revision(),
        "model": {
            **night["model"],
            "version": told("LAMPLIGHTER_MODEL_VERSION"),
            "commit": model_commit,
            "approval": registry.approval(Path(), product.name, model_commit) if model_commit else None,
        },
        "writer": uuid.uuid4().hex,
    }


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
