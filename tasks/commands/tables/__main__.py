"""Write a published night into a table of a database: `make export PRODUCT=... AS_OF=2013-06-30 TO=...`.

TO is a URL of SQLAlchemy, or the name of the environment variable that holds one. What happens there, and why it may be
done again at any time: `tasks.publication.tables.database`.
"""

import argparse
import sys

from tasks.commands.decide import given_date
from tasks.commands.embedded.store import enter_with_store
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import Store
from tasks.publication.tables.database import export_night
from tasks.stage import exit_code_of, load_product


def export(product: str, as_of: str, to: str, table: str) -> str:
    """Write the night of an as_of into a table; return a line. Raises UserError and TransientError."""
    night = given_date(as_of, "AS_OF")
    declared = load_product(product)[0]
    enter_with_store()
    return export_night(NightPlace(store=Store(declared.publish.url), product=product, as_of=night), to, table)


def main() -> None:
    """Export, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.commands.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("product", help="a product of params.yaml")
    parser.add_argument("as_of", help="the night's as_of, YYYY-MM-DD")
    parser.add_argument("--to", required=True, help="a URL of SQLAlchemy, or the variable that holds it")
    parser.add_argument("--table", default="", help="default: the product's name, with _ for -")
    asked = parser.parse_args()
    sys.exit(exit_code_of("export", lambda: print(export(asked.product, asked.as_of, asked.to, asked.table))))


if __name__ == "__main__":
    main()
