"""Return the few facts of a published night that its event in a scheduler's graph carries."""

from datetime import date

from pydantic import JsonValue

from tasks import params
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.runtime.settings import ROOT


def night_facts(product: str, as_of: str) -> dict[str, JsonValue]:
    """Return manifest, rows and version of the night of a date; nothing where none is published.

    Raises UserError where the manifest is damaged, TransientError where the store does not answer.
    """
    store = Store(params.load(ROOT / params.PARAMS_FILE).product(product).publish.url)
    place = NightPlace(store=store, product=product, as_of=date.fromisoformat(as_of))
    manifest = current_manifest(place)
    if manifest is None:
        return {}
    return {
        "manifest": store.uri(place.manifest),
        "rows_in": manifest.rows.rows_in,
        "published": manifest.rows.published,
        "quarantined": manifest.rows.quarantined,
        "version": manifest.model.version,
    }
