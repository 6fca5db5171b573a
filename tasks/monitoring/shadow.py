"""Score the rows of a published night with another model, and keep that apart from what is published.

What it answers lies in the store under the night's run and the model's hash, and never changes: whoever comes second
finds it. It is read where the night is measured, and deleted once no more labels are taken. A model scores where it
reads and answers exactly what is declared, from the very rows that the night was made of.
"""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from model.heads import head_of
from model.heads.prediction_rule import MeasuredThresholds
from model.target import read_target
from tasks.monitoring.contracts import SHADOW, Shadow
from tasks.params import Product
from tasks.publication.contracts import Manifest, PublishedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.scoring import prediction_columns, score_pieces
from tasks.rows import model_inputs
from tasks.rows.labels.horizons import label_columns
from tasks.rows.partitions import Partitions, n_rows, table_writer
from tasks.runtime import faults
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256
from tasks.runtime.paths import Paths

PREDICTION = "prediction"
_KEY = re.compile(rf"{SHADOW}/dt=(\d{{4}}-\d\d-\d\d)/run=[0-9a-f]+/[0-9a-f]+")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model that may score beside the champion, on this disk."""

    roles: tuple[str, ...]
    """previous, challenger or anchor."""
    version: str | None
    """Its version in the registry, if it has one."""
    commit: str
    """The commit of the experiment that made it."""
    model: str
    """The hash of its exported files."""
    folder: Path
    """Where they are."""


def score_beside(
    product: Product, place: NightPlace, manifest: Manifest, contender: Contender, paths: Paths
) -> Shadow | None:
    """Score the rows of a published night with another model and keep that in the store; None for a night without rows.

    Raises UserError where the model reads or answers anything else than is declared, or the rows are no longer those of
    the night; TransientError where the store does not answer.
    """
    if not manifest.rows.published:
        return None
    check_columns(product, contender)
    key = key_of(place, manifest.run, contender.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores"
        if not place.store.download(key, file):
            rows, day = Partitions(paths.valid / "rows"), manifest.scored_day
            if day not in rows or rows.sha256(day) != manifest.inputs.rows_sha256:
                raise UserError(
                    f"products.{product.name}: the valid rows of {day} must be those that the night of {manifest.dt} "
                    "was made of, and are not; run the night anew"
                )
            write_scores(product, rows.pieces(day), contender, file)
            faults.failpoint("shadow: a night is scored")
            place.store.create_file(key, file)
        part = PublishedPart(
            name=contender.model,
            rows=n_rows(file),
            bytes=file.stat().st_size,
            sha256=file_sha256(file),
            key=place.store.full_key(key),
        )
    return Shadow(
        roles=contender.roles, version=contender.version, commit=contender.commit, model=contender.model, part=part
    )


def check_columns(product: Product, contender: Contender) -> None:
    """Raise UserError unless a model reads and answers exactly what is declared."""
    from model.features.fitted import Features

    kinds, target = Features.load(contender.folder).kinds, read_target(contender.folder)
    if kinds != dict(product.inputs) or model_inputs.schema_mismatch(kinds, target, product):
        raise UserError(
            f"products.{product.name}: the model of {contender.version or contender.commit[:12]} must read and answer "
            "what is declared now to be compared, and does not; it is left out"
        )


def write_scores(product: Product, pieces: Iterator, contender: Contender, file: Path) -> None:
    """Write key and scores of rows, in their order. Raises UserError for a score that is not finite."""
    from model.scoring.scorer import Scorer

    try:
        scorer = Scorer(contender.folder)
    except ValueError as error:
        raise UserError(f"products.{product.name}: {error}") from None
    has_probabilities = head_of(product.target.task).has_probabilities
    rule = model_inputs.prediction_rule(product, MeasuredThresholds.load(contender.folder), scorer.classes)
    with table_writer(file) as write:
        for rows, _, scores in score_pieces(product, scorer, (piece.to_pandas() for piece in pieces), rule):
            columns = prediction_columns(product, scores, scorer.classes)
            if has_probabilities:  # from which the prediction follows
                columns.pop(PREDICTION)
            write(rows[label_columns(product)].assign(**columns))


def key_of(place: NightPlace, run: str, model: str) -> str:
    """Return the key of what a model answers for the rows of a night."""
    return f"{place.product}/{SHADOW}/dt={place.as_of.isoformat()}/run={run}/{model.removesuffix('.dir')}"


def collect_old_scores(store: Store, product: Product, now: datetime) -> int:
    """Delete what other models answered where no more labels are taken, by when it was written; return the number."""
    target = product.target
    waits = product.labels_wait_days + target.late_days + product.predict.lead_days + 1
    before, n_deleted = now - timedelta(days=max(waits, product.publish.keep_days)), 0
    for key, written in store.list(f"{product.name}/{SHADOW}/").items():
        if written < before and _KEY.fullmatch(key.removeprefix(f"{product.name}/")):
            store.delete(key)
            n_deleted += 1
    return n_deleted
