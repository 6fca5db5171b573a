"""Declare the commands that look after what is kept."""

import sys
from typing import Annotated

import typer

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
