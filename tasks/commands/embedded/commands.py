"""Declare the commands that start and stop the servers, and run on them."""

import typer

from tasks.commands.arguments import AsOf, Product

app = typer.Typer()


@app.command()
def run(product: Product, as_of: AsOf = None) -> None:
    """Train PRODUCT and publish its night of --as-of, through Airflow."""
    from tasks.commands.embedded.run import run

    run(product, as_of)


@app.command()
def up() -> None:
    """Start Airflow and the object store on loopback; print address, user and password."""
    from tasks.commands.embedded.servers import up

    up()


@app.command()
def down() -> None:
    """Stop the servers that `up` and `run` started."""
    from tasks.commands.embedded.servers import down

    down()
