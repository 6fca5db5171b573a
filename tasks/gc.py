"""Delete the parts of nights that others have replaced, once nobody can be reading them any more.

A part is deleted where all of these hold: the current manifest does not name it; no manifest names it that was replaced
within publish.keep_days; it was written longer ago than that; and its generation is not above that of the current
manifest, so that no publisher can name it any more, however late it wakes. Manifests themselves are kept for good: a
published night can always be traced, and re-created. Runs after publish, for every date of the product. So are the
scores of models beside the champion, once no more labels of their nights are taken, and the pages of trainings whose
models were not promoted, a year after they were made. A Delta table of the nights is brought to their manifests, and
files that none of its versions of the last publish.keep_days names are deleted.
"""

from datetime import UTC, date, datetime

from tasks import stage
from tasks.monitoring.shadow import collect_old_scores
from tasks.params import Product
from tasks.publication.garbage import collect_garbage
from tasks.publication.object_store import Store
from tasks.publication.tables.upkeep import keep_table
from tasks.reports.kept import collect_old_pages


def gc(product: Product, as_of: date) -> str:
    """Delete the product's garbage; `as_of` plays no part in it."""
    store, now = Store(product.publish.url), datetime.now(UTC)
    n_scores = collect_old_scores(store, product, now)
    line = collect_garbage(store, product, now)
    n_pages = collect_old_pages(store, product.name, now)
    of_table = keep_table(store, product)
    beside = f"; {of_table}" if of_table else ""
    beside += f"; {n_scores:,} scores of models beside the champion deleted" if n_scores else ""
    return line + beside + (f"; {n_pages:,} pages of trainings deleted" if n_pages else "")


if __name__ == "__main__":
    stage.main(gc)
