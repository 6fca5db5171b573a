"""Publish the night in data/predictions/<product> to the object store, whole or not at all.

The parts are uploaded first; then the manifest moves in one conditional PUT, and the pointer follows: see
`tasks.publication.manifests` for the layout of the store. Publishing the same night again changes nothing; another
night of the same date is uploaded beside it, then takes its place in one step. A run publishes under the generation
that it acquired when it was opened (`--run`); by hand, a new one is acquired here. Not a stage of dvc.yaml, because it
is a side effect.
"""

import uuid
from datetime import date
from pathlib import Path

from tasks import stage
from tasks.monitoring.announcements.outbox import announce, expect
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import ModelRef
from tasks.publication.manifests import NightPlace
from tasks.publication.night import verified_night
from tasks.publication.object_store import Store
from tasks.publication.publishing import Provenance, publish_night, surprise_of
from tasks.publication.tables.delta import follow_manifest
from tasks.quality.stops import stop_on_surprise
from tasks.runs.experiments import Run
from tasks.runs.registry import champions
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.git import try_git
from tasks.runtime.paths import Paths


def publish(product: Product, as_of: date, run: Run | None = None) -> str:
    """Upload the parts, then move the manifest and the pointer; return a line with the manifest's address.

    In a run with a champion, the product's mirror of its champion in the store is brought up to date too. At the end
    those who wait for the night are sent a line of it, and nothing of that stops a night.

    Raises UserError where the parts are not those of night.json, rows do not reconcile, more rows surprise the model
    than `drift.max_surprising` allows, the model has been banned meanwhile or a run opened later has published;
    TransientError where the store does not answer or other writers keep winning.
    """
    if run and run.champion:
        champions.check_not_banned(product.name, run.champion)
    night = verified_night(product, as_of)
    folder = Paths(product.name).predictions
    stop_on_surprise(product, surprise_of(product, night, folder), folder)
    place = NightPlace(store=Store(product.publish.url), product=product.name, as_of=as_of)
    generation = run.generation if run else None
    writer = run.name if run else f"by-hand-{uuid.uuid4()}"
    if generation is None:
        generation = manifests.acquire_generation(place, writer)
    faults.failpoint("publish: the generation is acquired")
    expect(product, place, writer)
    moved = publish_night(place, night, folder, generation, _provenance(product, night.model.sha256, run))
    if product.publish.table == "delta":
        follow_manifest(place, product.publish.keep_days, folder)
    if run and run.champion:  # a person may have gone back to another champion since its mirror was written
        champions.mirror(product)
    announce(product, place, writer)
    done = "published" if moved else "were published already, unchanged"
    parts = f"{len(night.parts)} part" + "s" * (len(night.parts) != 1)
    return f"{night.rows.published:,} predictions in {parts} {done}: {place.store.uri(place.manifest)}"


def _provenance(product: Product, model_sha256: str, run: Run | None) -> Provenance:
    """Return the facts of the run that the manifest records. Raises UserError outside of a git repository."""
    revision = try_git("rev-parse", "HEAD")
    if revision is None:
        raise UserError(
            "publish must run in a git repository, and git finds none; a manifest names the code's revision"
        )
    champion = run.champion if run else None
    return Provenance(
        experiment=run.name if run else None,
        experiment_commit=run.commit if run else None,
        git_revision=revision.strip(),
        model=ModelRef(
            sha256=model_sha256,
            version=run.model_version if run else None,
            commit=champion,
            approval=champions.approval(Path(), product.name, champion) if champion else None,
        ),
    )


if __name__ == "__main__":
    stage.main_of_run(publish)
