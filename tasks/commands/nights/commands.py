"""Declare the commands that make nights, look at them and hand them on."""

from datetime import date
from typing import Annotated, Literal

import typer

from tasks.commands.arguments import AsOf, FirstNight, LastNight, Product, RunDate, Uri, Why, date_of, git_user
from tasks.stage import load_product

app = typer.Typer()


@app.command()
def backfill(
    product: Product,
    first: FirstNight,
    last: LastNight,
    force: Annotated[bool, typer.Option("--force", help="make nights anew that are there")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="show what stands, and make nothing")] = False,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="how many nights are made at a time")] = 2,
) -> None:
    """Make the nights of PRODUCT that are missing, in order, each as of its own date."""
    from tasks.commands.nights.backfill import backfill

    print(f"\n{backfill(product, first, last, force=force, dry=dry, at_once=at_once)}")


@app.command()
def trace(uri: Uri) -> None:
    """Print the way back from a night or a part: model, experiment, code, data, who approved."""
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.nights.trace import trace

    enter_with_store()
    print(trace(uri))


@app.command()
def recreate(
    uri: Uri,
    start: Annotated[Literal["model", "data"], typer.Option("--from", help="what to start from")] = "model",
    environment: Annotated[Literal["own", "installed"], typer.Option(help="the packages to run with")] = "own",
) -> None:
    """Make a published night again, from git and the DVC remote alone, and compare every byte."""
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.nights.recreate import recreate

    enter_with_store()
    print(recreate(uri, retrain=start == "data", installed=environment == "installed"))


@app.command()
def report(
    product: Product,
    as_of: AsOf = None,
    local: Annotated[bool, typer.Option("--local", help="of what dvc repro has made in this folder")] = False,
    docs: Annotated[bool, typer.Option("--docs", help="and Great Expectations' Data Docs of its rows")] = False,
) -> None:
    """Bring the newest report of a training of PRODUCT, and open it where there is a browser."""
    from tasks.commands.nights.report import report

    declared, known = load_product(product)
    print(report(declared, as_of, known, local=local, with_docs=docs))


@app.command()
def runs(
    product: Annotated[str | None, typer.Argument(help="a product of params.yaml; default: all")] = None,
    last: Annotated[int, typer.Option(min=1, help="how many trainings and nights are listed")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="the records in full")] = False,
) -> None:
    """List the last trainings and nights of PRODUCT, or of all, in a table of 100 columns."""
    from tasks import params
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.nights.runs import show_runs

    everything = params.load()
    named = [everything.product(product)] if product else list(everything.products.values())
    enter_with_store()
    print(show_runs(named, last, as_json=as_json))


@app.command()
def withdraw(
    product: Product,
    night: Annotated[date, typer.Argument(parser=date_of("DT"), metavar="DAY", help="the night's as_of, YYYY-MM-DD")],
    why: Why,
) -> None:
    """Withdraw the published night of an as_of: its readers are told, and _latest goes back."""
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.nights.withdraw import withdraw

    enter_with_store()
    print(withdraw(load_product(product)[0], night, why, git_user()))


@app.command()
def export(
    product: Product,
    as_of: RunDate,
    to: Annotated[str, typer.Option(help="a URL of SQLAlchemy, or the variable that holds it")],
    table: Annotated[str, typer.Option(help="default: the product's name, with _ for -")] = "",
) -> None:
    """Write the published night of an as_of into a table of a database, once however often it is asked."""
    from tasks.commands.nights.export import export

    print(export(product, as_of, to, table))
