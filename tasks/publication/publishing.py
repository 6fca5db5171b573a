"""Publish a night: upload its parts, move the manifest in one conditional PUT, then the night file and the pointer."""

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.heads.reconstruct import SURPRISE_PERCENTILE
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import FORMAT, Manifest, ModelRef, Night, PublishedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.night_file import scratch_folder, write_night_file
from tasks.publication.relocation import earlier_parts, settle
from tasks.publication.withdrawal import leave_withdrawn
from tasks.quality.drift import compare_surprise
from tasks.quality.verdicts import Drift
from tasks.rows.decisions import accepted_days
from tasks.rows.partitions import read_table
from tasks.runtime import faults


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The facts that a manifest records beside the night: where it comes from."""

    experiment: str | None
    """The run's experiment; None for a night published by hand."""
    experiment_commit: str | None
    """The experiment's commit."""
    git_revision: str
    """The commit of the code."""
    model: ModelRef
    """The model as the registry knows it."""


def surprise_of(product: Product, night: Night, folder: Path) -> Drift:
    """Return the share of the rows of the night in `folder` that surprise the model, beside its limit if there is one.

    A night that a person has accepted passes. `validate` cannot judge this: no champion stands before it.
    """
    day, figures = night.scored_day.isoformat(), []
    if product.drift.max_surprising is not None and night.parts:
        tables = (read_table(folder / part.name, [SURPRISE_PERCENTILE]) for part in night.parts)
        ranks = np.concatenate([table[SURPRISE_PERCENTILE] for table in tables])
        figures = compare_surprise(ranks, product)
        print(*figures, flush=True)
    accepted = accepted_days(product.name).get(day) if figures else None
    return Drift(date=day, days_before=0, accepted=accepted, figures=figures)


def publish_night(place: NightPlace, night: Night, folder: Path, generation: int, provenance: Provenance) -> bool:
    """Publish the night whose parts lie in `folder`; return False where one of the same inputs was published already.

    Raises UserError where a run opened later has published, TransientError where the store does not answer or other
    writers keep winning.
    """

    with scratch_folder() as scratch:

        def upload_and_describe() -> Manifest:
            parts = _upload(place, night, folder, generation)
            manifest = _manifest(place, night, generation, provenance, parts)
            return replace(manifest, file=write_night_file(place, manifest, scratch, folder))

        moved = manifests.commit_manifest(place, night.run, generation, upload_and_describe)
        faults.failpoint("publish: the manifest has moved")
        settle(place, earlier_parts(place), scratch, folder)
        if not moved:
            _bring_back(place, night, folder)
    faults.failpoint("publish: the night file has followed")
    manifests.advance_latest(place)
    leave_withdrawn(place)
    faults.failpoint("publish: the pointer has moved")
    manifests.release_generations(place, generation)
    faults.failpoint("publish: the claim is released")
    return moved


def _upload(place: NightPlace, night: Night, folder: Path, generation: int) -> tuple[PublishedPart, ...]:
    """Bring every part to its key; return the parts as the manifest names them."""
    parts = []
    for part in night.parts:
        key = place.part(night.run, generation, part.name)
        place.store.create_file(key, folder / part.name)
        faults.failpoint("publish: a part is uploaded")
        full_key = place.store.full_key(key)
        parts.append(PublishedPart(name=part.name, rows=part.rows, bytes=part.bytes, sha256=part.sha256, key=full_key))
    return tuple(parts)


def _bring_back(place: NightPlace, night: Night, folder: Path) -> None:
    """Upload what the store has lost of a night that was published before: publishing it again mends it."""
    current = manifests.current_manifest(place)
    for part in current.parts if current and current.run == night.run else ():
        place.store.create_file(place.store.key_of(part.key), folder / part.name)


def _manifest(
    place: NightPlace, night: Night, generation: int, provenance: Provenance, parts: tuple[PublishedPart, ...]
) -> Manifest:
    return Manifest(
        format=FORMAT,
        product=place.product,
        dt=place.as_of,
        run=night.run,
        as_of=night.as_of,
        scored_day=night.scored_day,
        rows=night.rows,
        accepted=night.accepted,
        held=night.held,
        schema=night.schema,
        parts=parts,
        model=provenance.model,
        inputs=night.inputs,
        generation=generation,
        supersedes=None,
        experiment=provenance.experiment,
        experiment_commit=provenance.experiment_commit,
        git_revision=provenance.git_revision,
        writer=uuid.uuid4().hex,
    )
