"""Declare the commands that answer what a product's data asks."""

from datetime import date
from typing import Annotated

import typer

from tasks.commands.arguments import AsOf, Day, OptionalDay, OptionalWhy, Product, RunDate, Why, git_user
from tasks.stage import load_product

app = typer.Typer()


@app.command()
def product(
    name: Annotated[str, typer.Argument(help="what the product is to be called")],
    source: Annotated[str, typer.Option("--from", help="a file, or the SQLAlchemy URL of a database")],
    target: Annotated[str, typer.Option(help="the column to predict")],
    table: Annotated[str, typer.Option(help="the table of the database")] = "",
    write: Annotated[bool, typer.Option("--write", help="append the entry to params.yaml")] = False,
) -> None:
    """Propose an entry of params.yaml from a look at a file or a table."""
    from tasks.commands.data.product import propose

    print(propose(name, source, target, table, write))


@app.command()
def accept(product: Product, day: Day, why: Why) -> None:
    """Let a day pass that `validate` stopped because it differs in kind."""
    from tasks.commands.data import decide

    today, declared = date.today(), load_product(product)[0]
    print(decide.accept(declared, day, why, git_user(), today))


@app.command()
def refetch(product: Product, day: Day, why: Why) -> None:
    """Have a stored day fetched again from its mended source."""
    from tasks.commands.data import decide

    today, declared = date.today(), load_product(product)[0]
    print(decide.refetch(declared, day, why, git_user(), today))


@app.command()
def anew(product: Product, as_of: RunDate, why: Why) -> None:
    """Let the run of an as_of go on without history that the origin has lost for good."""
    from tasks.commands.data import decide

    today, declared = date.today(), load_product(product)[0]
    print(decide.anew(declared, as_of, why, git_user(), today))


@app.command()
def quarantine(product: Product, day: OptionalDay = None) -> None:
    """List what lies in quarantine, or write the rows of DAY to a file to edit."""
    from tasks.commands.data import requeue

    declared = load_product(product)[0]
    print(requeue.show(declared, day) if day else requeue.overview(declared))


@app.command()
def requeue(product: Product, day: Day, why: OptionalWhy = "", as_of: AsOf = None) -> None:
    """Turn what was edited of DAY into corrections, known from --as-of on."""
    from tasks.commands.data import requeue

    declared, known = load_product(product)
    print(requeue.requeue(declared, as_of or known, day, git_user(), date.today(), why))


@app.command()
def migrate_decisions() -> None:
    """Move decisions from corrections/ and params.yaml to decisions/."""
    from tasks.commands.data import decide

    print(decide.migrate(git_user(), date.today()))
