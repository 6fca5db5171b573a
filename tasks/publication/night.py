"""Write and read a scored night on disk: the parts, and night.json beside them."""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from tasks.params import Product
from tasks.publication.contracts import ModelHash, Night, NightInputs, Part, Rows, SchemaField
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, read_json, write_json
from tasks.runtime.paths import Paths

NIGHT = "night.json"


def run_of(inputs: NightInputs) -> str:
    """Return the name of the publication that these inputs make: their hash."""
    return hashlib.sha256(json.dumps(inputs.to_json(), sort_keys=True).encode()).hexdigest()[:16]


def part_name(shard: int) -> str:
    """Return the file name of one shard."""
    return f"part-{shard:05d}.parquet"


def write_night(
    product: Product,
    as_of: date,
    inputs: NightInputs,
    parts: Sequence[Part],
    folder: Path,
    paths: Paths | None = None,
) -> None:
    """Write night.json beside the parts in `folder`, with the rows of the validation report below `paths`.

    Raises UserError unless rows in = published + quarantined.
    """
    report = read_json((paths or Paths(product.name)).report("validation.json"))
    day = report["scored_day"]
    rows = Rows(
        rows_in=day["rows_in"],
        published=sum(part.rows for part in parts),
        quarantined=day["rows_quarantined"],
        horizons=len(product.predict.horizons) or 1,
    )
    if not rows.add_up:
        raise UserError(
            f"products.{product.name}: rows in must be published plus quarantined, got {rows.to_json()}; "
            f"run dvc repro --force validate@{product.name} predict@{product.name}"
        )
    night = Night(
        run=run_of(inputs),
        as_of=as_of,
        scored_day=inputs.scored_day,
        rows=rows,
        accepted=_accepted(report.get("drift", {}).get("accepted"), report.get("history_anew")),
        held=tuple(date.fromisoformat(each["date"]) for each in report.get("held_days", [])),
        schema=_schema(folder / parts[0].name),
        parts=tuple(parts),
        model=ModelHash(sha256=inputs.model_sha256),
        inputs=inputs,
    )
    write_json(folder / NIGHT, night.to_json())


def _accepted(day: str | None, history: str | None) -> str | None:
    """Return what a person accepted of the night: that its day differs, that its history was fetched anew."""
    parts = [day, history and f"history was lost, and fetched anew: {history}"]
    return "; ".join(part for part in parts if part) or None


def read_night(folder: Path) -> Night:
    """Return the night that a folder holds, checking nothing but the record itself."""
    return Night.from_json((folder / NIGHT).read_bytes())


def verified_night(product: Product, as_of: date) -> Night:
    """Return the night of the working directory after hashing every part and adding up the rows.

    Raises UserError where night.json is absent, of another date, or does not describe the parts beside it.
    """
    folder = Paths(product.name).predictions
    if not (folder / NIGHT).exists():
        raise UserError(f"{folder}/{NIGHT} must exist, and does not; run dvc repro predict@{product.name}")
    night = read_night(folder)
    if night.as_of != as_of:
        raise UserError(
            f"{folder}/{NIGHT} must be of as_of {as_of}, and is of {night.as_of}; run dvc repro predict@{product.name}"
        )
    for part in night.parts:
        if not (folder / part.name).exists() or file_sha256(folder / part.name) != part.sha256:
            raise UserError(
                f"{folder / part.name} must be as {NIGHT} says, and is not; "
                f"run dvc repro --force predict@{product.name}"
            )
    n_scored = sum(part.rows for part in night.parts)
    if not night.rows.add_up or night.rows.published != n_scored:
        raise UserError(
            f"{folder}/{NIGHT}: rows in must be published plus quarantined, got {night.rows.to_json()} and {n_scored} "
            "in the parts; report this as a bug"
        )
    return night


def _schema(file: Path) -> tuple[SchemaField, ...]:
    import pyarrow.parquet

    return tuple(SchemaField(name=field.name, type=str(field.type)) for field in pyarrow.parquet.read_schema(file))
