"""Describe a scored night: night.json beside its parts."""

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

from tasks.params import Product
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.paths import Paths

NIGHT = "night.json"


def run_of(inputs: dict[str, Any]) -> str:
    """The name of the publication that these inputs make."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def part_name(shard: int) -> str:
    """The file of one shard."""
    return f"part-{shard:05d}.parquet"


def write_night(
    product: Product, as_of: date, inputs: dict[str, Any], parts: list[dict[str, Any]], folder: Path
) -> None:
    """night.json beside the parts. Raises UserError unless rows in = published + quarantined."""
    report = read_json(Paths(product.name).report("validation.json"))
    day = report["scored_day"]
    rows = {
        "in": day["rows_in"],
        "published": sum(part["rows"] for part in parts),
        "quarantined": day["rows_quarantined"],
    }
    if rows["in"] != rows["published"] + rows["quarantined"]:
        raise UserError(
            f"products.{product.name}: rows in must be published plus quarantined, got {rows}; "
            f"run dvc repro --force validate@{product.name} predict@{product.name}"
        )
    write_json(
        folder / NIGHT,
        {
            "run": run_of(inputs),
            "as_of": as_of.isoformat(),
            "scored_day": inputs["scored_day"],
            "rows": rows,
            "accepted": report.get("drift", {}).get("accepted"),
            "schema": _schema(folder / parts[0]["name"]),
            "parts": parts,
            "model": {"sha256": inputs["model_sha256"]},
            "inputs": inputs,
        },
    )


def _schema(file: Path) -> list[dict[str, str]]:
    import pyarrow.parquet

    return [{"name": field.name, "type": str(field.type)} for field in pyarrow.parquet.read_schema(file)]
