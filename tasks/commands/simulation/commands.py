"""Declare the command that replays nights and retrains."""

from typing import Annotated, Literal

import typer

from tasks.commands.arguments import FirstNight, LastNight, Product

app = typer.Typer()


@app.command()
def simulate(
    product: Product,
    first: FirstNight,
    last: LastNight,
    fault: Annotated[
        Literal["", "feed", "labels", "poison", "shift"], typer.Option(help="what goes wrong with the source meanwhile")
    ] = "",
    column: Annotated[str, typer.Option(help="the number that --fault shift has in another unit")] = "",
    leaks: Annotated[int, typer.Option(min=0, help="random nights to make again from a source that ends there")] = 0,
    save: Annotated[str, typer.Option(help="where picture and figures go, without an ending")] = "",
) -> None:
    """Replay nights and retrains of PRODUCT apart from the real ones, and compare policies of promotion."""
    from tasks.commands.simulation.simulate import simulate

    print(f"\n{simulate(product, first, last, fault=fault, column=column, leaks=leaks, save=save)}")
