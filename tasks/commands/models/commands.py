"""Declare the commands that decide which version predicts."""

from datetime import date
from typing import Annotated

import typer

from tasks.commands.arguments import OptionalVersion, Product, Version, Why, date_of
from tasks.stage import load_product

app = typer.Typer()


@app.command()
def rollback(product: Product, version: Version, why: Why) -> None:
    """Make another version the champion of PRODUCT; the one that it replaces is withdrawn."""
    from tasks.commands.models import versions

    print(versions.roll_back(load_product(product)[0], version, why))


@app.command()
def hold(product: Product, why: Why, version: OptionalVersion = "") -> None:
    """Let the champion of PRODUCT stay, whatever passes the gates, until it is released."""
    from tasks.commands.models import versions

    print(versions.hold(load_product(product)[0], version, why))


@app.command()
def ban(product: Product, version: Version, why: Why) -> None:
    """Let VERSION of PRODUCT never predict again, under any number."""
    from tasks.commands.models import versions

    print(versions.ban(load_product(product)[0], version, why))


@app.command()
def release(product: Product, version: Version, why: Why) -> None:
    """End what holds VERSION of PRODUCT, or keeps it out: hold, ban and withdrawal."""
    from tasks.commands.models import versions

    print(versions.release(load_product(product)[0], version, why))


@app.command()
def champion(
    product: Product,
    on: Annotated[
        date | None, typer.Option(parser=date_of("ON"), metavar="DATE", help="the night's as_of; default: now")
    ] = None,
) -> None:
    """Say which model of PRODUCT predicts, or predicted the night of a date, and who let it."""
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.models import versions

    if on:
        enter_with_store()
    print(versions.champion_on(load_product(product)[0], on))


@app.command()
def tune(
    product: Product,
    trials: Annotated[int, typer.Option(min=1, help="how many there are to be in the end")] = 20,
    knobs: Annotated[str, typer.Option(help="search only settings that begin so, such as train or network.d")] = "",
) -> None:
    """Search better settings of PRODUCT; write a patch of params.yaml."""
    from tasks.training.tuning.searching import tune

    print(f"tune: {tune(load_product(product)[0], trials, knobs)}", flush=True)
