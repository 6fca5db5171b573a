"""Write a published night into a table of a database: `make export PRODUCT=... AS_OF=2013-06-30 TO=...`.

TO is a URL of SQLAlchemy, or the name of the environment variable that holds one. What happens there, and why it may be
done again at any time: `tasks.publication.tables.database`.
"""

from datetime import date

from tasks.commands.embedded.store import enter_with_store
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.tables.database import export_night
from tasks.stage import load_product


def export(product: str, as_of: date, to: str, table: str) -> str:
    """Write the night of an as_of into a table; return a line. Raises UserError and TransientError."""
    declared = load_product(product)[0]
    enter_with_store()
    return export_night(NightPlace(store=Store(declared.publish.url), product=product, as_of=as_of), to, table)
