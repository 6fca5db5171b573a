"""Sum up a run in the few lines that a person wants to read."""

import math
import os
import shlex
from datetime import date
from pathlib import Path

from tasks.params import Product
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.read import read_manifest
from tasks.runtime.files import read_json
from tasks.runtime.paths import Paths
from tasks.runtime.settings import ROOT, settings
from tasks.training.measuring import format_metric


def summarise(product: Product, as_of: str, experiments: dict[str, str], credentials: Path | None) -> str:
    """Return the metric beside the baseline's, the experiments, the rows, the manifest and a line that reads the night.

    `experiments` has the run of `train` and that of `predict`, whose workspaces are on this disk. `credentials` is the
    file with the store's address and keys; None where the shell has them.
    """
    workspaces = {kind: settings().home / "runs" / name for kind, name in experiments.items()}
    measured = read_json(workspaces["train"] / Paths(product.name).report("evaluation.json"))
    metric, manifest = product.gates.metric, read_manifest(product.publish.url, product.name, as_of)
    low, high = measured["model"][f"{metric}_interval_95"] or (math.nan, math.nan)
    rows, store = manifest.rows, Store(product.publish.url)
    place = NightPlace(store=store, product=product.name, as_of=date.fromisoformat(as_of))
    lines = {
        f"held-out {metric}": f"{format_metric(measured['model'][metric])} (95% interval {low:.4f} to {high:.4f}), "
        f"baseline {format_metric(measured['baseline'][metric])}, on {measured['rows_test']:,} rows",
        "experiments": f"{experiments['train']}, {experiments['predict']}",
        "model": f"{manifest.model.version} (sha256 {manifest.model.sha256[:12]})",
        f"rows of {manifest.scored_day}": f"{rows.rows_in:,} in = {rows.rows_in - rows.quarantined:,} valid + "
        f"{rows.quarantined:,} quarantined; {rows.published:,} published",
        "manifest": store.uri(place.manifest),
    }
    width = max(map(len, lines))
    return "\n".join(
        [f"{name:<{width}}  {text}" for name, text in lines.items()]
        + ["read it:", f"  {reading_line(product, as_of, credentials)}"]
    )


def reading_line(product: Product, as_of: str, credentials: Path | None) -> str:
    """Return one line for a shell at the repository's root that prints the night."""
    sourced = f"set -a; . {shlex.quote('./' + os.path.relpath(credentials, ROOT))}; set +a; " if credentials else ""
    return (
        f'{sourced}.venv/bin/python -c "from tasks.read import read_predictions; '
        f"print(read_predictions('{product.publish.url}', '{product.name}', '{as_of}'))\""
    )
