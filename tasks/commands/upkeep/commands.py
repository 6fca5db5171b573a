"""Declare the commands that look after what is kept."""

import sys
from typing import Annotated

import typer

from tasks.commands.arguments import Product, Why
from tasks.stage import load_product

app = typer.Typer()


@app.command()
def gc(yes: Annotated[bool, typer.Option("--yes", help="remove it, without asking")] = False) -> None:
    """Show which experiments and data nobody needs any more, and remove them."""
    from datetime import UTC, datetime

    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.upkeep.prune import prune

    enter_with_store()
    print(prune(datetime.now(UTC), yes, input if sys.stdin.isatty() else None))


@app.command()
def erase(
    product: Product,
    key: Annotated[str, typer.Argument(help="a row's key, column=value, JSON of several, or - to be asked for it")],
    why: Why,
    yes: Annotated[bool, typer.Option("--yes", help="erase it, for good")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="show what would go, and write nothing")] = False,
) -> None:
    """Erase a person's rows of PRODUCT from everything that is kept, and keep them from coming back."""
    from datetime import date

    from tasks.commands.arguments import git_user
    from tasks.commands.embedded.store import compact_store, enter_with_store
    from tasks.commands.upkeep.erase import erase_rows

    enter_with_store()
    person, today = git_user(), date.today()
    print(erase_rows(load_product(product)[0], key, why, person, today, yes=yes, dry=dry, compact=compact_store))


@app.command()
def forget(
    product: Product,
    key: Annotated[str, typer.Argument(help="column=value, a row's key where that is salted, or - to be asked for it")],
    why: Why,
    yes: Annotated[bool, typer.Option("--yes", help="delete the salt, for good")] = False,
) -> None:
    """Delete the salt of a person of PRODUCT: what is stored under their hash is of nobody from then on."""
    from datetime import date

    from tasks.commands.arguments import git_user
    from tasks.commands.embedded.store import compact_store, enter_with_store
    from tasks.commands.upkeep.forget import forget_subject

    enter_with_store()
    made = load_product(product)[0]
    print(forget_subject(made, key, why, git_user(), date.today(), yes=yes, compact=compact_store))


@app.command()
def restore(
    every_byte: Annotated[bool, typer.Option("--all", help="read every byte of nights and data")] = False,
) -> None:
    """Bring back what a new clone lacks of git, and check that all is there from which the next night is made."""
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.upkeep.restore import restore

    enter_with_store()
    print(restore(every_byte))


@app.command()
def audit(database: Annotated[str, typer.Option(help="a copy of OSV's records; default: ask PyPI")] = "") -> None:
    """Look up known vulnerabilities of the pinned packages."""
    from tasks.commands.upkeep.audit import audit

    print(audit(database))


@app.command()
def manifest_schema() -> None:
    """Write docs/manifest.schema.json, by which readers elsewhere can check a manifest."""
    from tasks.publication.contracts import SCHEMA_FILE, schema_text

    SCHEMA_FILE.write_text(schema_text(), "utf-8")
    print(f"{SCHEMA_FILE}: written; read the change and commit it")


@app.command()
def licences() -> None:
    """Write LICENCES.md from what the installed packages say of themselves."""
    from tasks.commands.upkeep.audit import licences

    print(licences())
