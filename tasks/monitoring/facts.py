"""Return the few facts of what a task has made that its event in a scheduler's graph carries.

Of each asset `manifest` says what lists it, `rows` how many there are, and `version` which one it is.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from pydantic import JsonValue

from tasks import params
from tasks.publication.contracts import MIRROR
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.runtime.files import read_json
from tasks.runtime.paths import DATA, Paths
from tasks.runtime.settings import ROOT

Extra = dict[str, JsonValue]


def delivery_facts(product: str, as_of: str, workspace: Path, version: str) -> tuple[Extra, Extra]:
    """Return the facts of what the source has delivered, and of the raw data with it, from what ingest left on a disk.

    `version` is the hash by which DVC knows the raw data. What a source has is known by the date of asking alone.
    """
    declared, made = Paths(product, root=DATA), Paths(product, root=workspace / DATA)
    report = read_json(made.report("ingest.json"))
    delivered = {"manifest": str(declared.report("ingest.json")), "rows": report["rows_delivered"], "version": as_of}
    raw = {
        "manifest": str(declared.raw / "index.json"),
        "rows": report["rows_total"],
        "rows_new": report["rows_new"],
        "labels": report["labels_total"],
        "labels_new": report["labels_new"],
        "version": version,
    }
    return delivered, raw


def model_facts(product: str, verdict: Mapping[str, JsonValue], workspace: Path) -> Extra:
    """Return the facts of a model that has become the champion, by its verdict and the split that it was trained on."""
    split = read_json(Paths(product, root=workspace / DATA).report("split.json"))["rows"]
    figures = verdict.get("figures")
    measured = figures if isinstance(figures, dict) else {}
    store = Store(params.load(ROOT / params.PARAMS_FILE).product(product).publish.url)
    return {
        "manifest": store.uri(f"{product}/{MIRROR}"),
        "rows": split["train"] + split.get("val", 0),
        "rows_held_out": split.get("test"),
        "version": verdict.get("version"),
        "metric": measured.get("metric"),
        "value": measured.get("value"),
    }


def night_facts(product: str, as_of: str) -> Extra:
    """Return the facts of the night of a date; nothing where none is published.

    Raises UserError where the manifest is damaged, TransientError where the store does not answer.
    """
    store = Store(params.load(ROOT / params.PARAMS_FILE).product(product).publish.url)
    place = NightPlace(store=store, product=product, as_of=date.fromisoformat(as_of))
    manifest = current_manifest(place)
    if manifest is None:
        return {}
    return {
        "manifest": store.uri(place.manifest),
        "rows": manifest.rows.published,
        "rows_in": manifest.rows.rows_in,
        "rows_in_quarantine": manifest.rows.quarantined,
        "version": manifest.model.version,
        "run": manifest.run,
    }
