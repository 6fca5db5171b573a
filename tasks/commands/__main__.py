"""The one command line for people: `python -m tasks.commands <command>`, or `make <command>`.

The only file that knows typer. Each command is a door to a plain function, imported when it is called, so that --help
is quick. Exit codes are those of the stages: 65 for a mistake that a person mends, 75 for one that waiting mends.
"""

import sys
from collections.abc import Callable
from datetime import date
from typing import Annotated, Literal

import typer

from tasks.stage import exit_code_of, load_product

app = typer.Typer(
    name="python -m tasks.commands",
    help="What people do beside the stages; a stage is python -m tasks.<stage> <product>.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _date(name: str) -> Callable[[str], date]:
    """Return what reads the date that a person typed under a name, and raises UserError where that is none."""

    def read(text: str) -> date:
        from tasks.commands.decide import given_date

        return given_date(text, name)

    return read


Product = Annotated[str, typer.Argument(help="a product of params.yaml")]
Uri = Annotated[str, typer.Argument(help="the s3:// address of a manifest or a part")]
Day = Annotated[date, typer.Argument(parser=_date("DT"), metavar="DAY", help="the day of the rows, YYYY-MM-DD")]
OptionalDay = Annotated[
    date | None, typer.Argument(parser=_date("DT"), metavar="DAY", help="YYYY-MM-DD; default: all days")
]
RunDate = Annotated[date, typer.Argument(parser=_date("AS_OF"), metavar="DATE", help="the as_of of a run, YYYY-MM-DD")]
Why = Annotated[str, typer.Argument(help="the reason, for those who read the decision")]
Version = Annotated[str, typer.Argument(help="a version of the registry, such as v2.0.0")]
OptionalVersion = Annotated[str, typer.Option(help="the version that must be the champion")]
OptionalWhy = Annotated[str, typer.Option(help="the reason; default: why the row was in quarantine")]
AsOf = Annotated[
    date | None, typer.Option(parser=_date("AS_OF"), metavar="DATE", help="YYYY-MM-DD; default: as_of of params.yaml")
]


@app.command()
def run(product: Product, as_of: AsOf = None) -> None:
    """Train PRODUCT and publish its night of --as-of, through Airflow."""
    from tasks.commands.embedded.run import run

    run(product, as_of)


@app.command()
def backfill(
    product: Product,
    first: Annotated[
        date, typer.Option("--from", parser=_date("FROM"), metavar="DATE", help="the first night's as_of")
    ],
    last: Annotated[date, typer.Option("--to", parser=_date("TO"), metavar="DATE", help="the last night's as_of")],
    force: Annotated[bool, typer.Option("--force", help="make nights anew that are there")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="show what stands, and make nothing")] = False,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="how many nights are made at a time")] = 2,
) -> None:
    """Make the nights of PRODUCT that are missing, in order, each as of its own date."""
    from tasks.commands.backfill import backfill

    print(f"\n{backfill(product, first, last, force=force, dry=dry, at_once=at_once)}")


@app.command()
def simulate(
    product: Product,
    first: Annotated[
        date, typer.Option("--from", parser=_date("FROM"), metavar="DATE", help="the first night's as_of")
    ],
    last: Annotated[date, typer.Option("--to", parser=_date("TO"), metavar="DATE", help="the last night's as_of")],
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


@app.command()
def product(
    name: Annotated[str, typer.Argument(help="what the product is to be called")],
    source: Annotated[str, typer.Option("--from", help="a file, or the SQLAlchemy URL of a database")],
    target: Annotated[str, typer.Option(help="the column to predict")],
    table: Annotated[str, typer.Option(help="the table of the database")] = "",
    write: Annotated[bool, typer.Option("--write", help="append the entry to params.yaml")] = False,
) -> None:
    """Propose an entry of params.yaml from a look at a file or a table."""
    from tasks.commands.product import propose

    print(propose(name, source, target, table, write))


@app.command()
def trace(uri: Uri) -> None:
    """Print the way back from a night or a part: model, experiment, code, data, who approved."""
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.trace import trace

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
    from tasks.commands.recreate import recreate

    enter_with_store()
    print(recreate(uri, retrain=start == "data", installed=environment == "installed"))


@app.command()
def gc(yes: Annotated[bool, typer.Option("--yes", help="remove it, without asking")] = False) -> None:
    """Show which experiments and data nobody needs any more, and remove them."""
    from datetime import UTC, datetime

    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.prune import prune

    enter_with_store()
    print(prune(datetime.now(UTC), yes, input if sys.stdin.isatty() else None))


@app.command()
def accept(product: Product, day: Day, why: Why) -> None:
    """Let a day pass that `validate` stopped because it differs in kind."""
    from tasks.commands import decide

    today, declared = date.today(), load_product(product)[0]
    print(decide.accept(declared, day, why, decide.git_user(), today))


@app.command()
def refetch(product: Product, day: Day, why: Why) -> None:
    """Have a stored day fetched again from its mended source."""
    from tasks.commands import decide

    today, declared = date.today(), load_product(product)[0]
    print(decide.refetch(declared, day, why, decide.git_user(), today))


@app.command()
def anew(product: Product, as_of: RunDate, why: Why) -> None:
    """Let the run of an as_of go on without history that the origin has lost for good."""
    from tasks.commands import decide

    today, declared = date.today(), load_product(product)[0]
    print(decide.anew(declared, as_of, why, decide.git_user(), today))


@app.command()
def rollback(product: Product, version: Version, why: Why) -> None:
    """Make another version the champion of PRODUCT; the one that it replaces is withdrawn."""
    from tasks.commands import versions

    print(versions.roll_back(load_product(product)[0], version, why))


@app.command()
def hold(product: Product, why: Why, version: OptionalVersion = "") -> None:
    """Let the champion of PRODUCT stay, whatever passes the gates, until it is released."""
    from tasks.commands import versions

    print(versions.hold(load_product(product)[0], version, why))


@app.command()
def ban(product: Product, version: Version, why: Why) -> None:
    """Let VERSION of PRODUCT never predict again, under any number."""
    from tasks.commands import versions

    print(versions.ban(load_product(product)[0], version, why))


@app.command()
def release(product: Product, version: Version, why: Why) -> None:
    """End what holds VERSION of PRODUCT, or keeps it out: hold, ban and withdrawal."""
    from tasks.commands import versions

    print(versions.release(load_product(product)[0], version, why))


@app.command()
def champion(
    product: Product,
    on: Annotated[
        date | None, typer.Option(parser=_date("ON"), metavar="DATE", help="the night's as_of; default: now")
    ] = None,
) -> None:
    """Say which model of PRODUCT predicts, or predicted the night of a date, and who let it."""
    from tasks.commands import versions
    from tasks.commands.embedded.store import enter_with_store

    if on:
        enter_with_store()
    print(versions.champion_on(load_product(product)[0], on))


@app.command()
def report(
    product: Product,
    as_of: AsOf = None,
    local: Annotated[bool, typer.Option("--local", help="of what dvc repro has made in this folder")] = False,
    docs: Annotated[bool, typer.Option("--docs", help="and Great Expectations' Data Docs of its rows")] = False,
) -> None:
    """Bring the newest report of a training of PRODUCT, and open it where there is a browser."""
    from tasks.commands.report import report

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
    from tasks.commands.runs import show_runs

    everything = params.load()
    named = [everything.product(product)] if product else list(everything.products.values())
    enter_with_store()
    print(show_runs(named, last, as_json=as_json))


@app.command()
def withdraw(
    product: Product,
    night: Annotated[date, typer.Argument(parser=_date("DT"), metavar="DAY", help="the night's as_of, YYYY-MM-DD")],
    why: Why,
) -> None:
    """Withdraw the published night of an as_of: its readers are told, and _latest goes back."""
    from tasks.commands.decide import git_user
    from tasks.commands.embedded.store import enter_with_store
    from tasks.commands.withdraw import withdraw

    enter_with_store()
    print(withdraw(load_product(product)[0], night, why, git_user()))


@app.command()
def quarantine(product: Product, day: OptionalDay = None) -> None:
    """List what lies in quarantine, or write the rows of DAY to a file to edit."""
    from tasks.commands import requeue

    declared = load_product(product)[0]
    print(requeue.show(declared, day) if day else requeue.overview(declared))


@app.command()
def requeue(product: Product, day: Day, why: OptionalWhy = "", as_of: AsOf = None) -> None:
    """Turn what was edited of DAY into corrections, known from --as-of on."""
    from tasks.commands import decide, requeue

    declared, known = load_product(product)
    print(requeue.requeue(declared, as_of or known, day, decide.git_user(), date.today(), why))


@app.command()
def migrate_decisions() -> None:
    """Move decisions from corrections/ and params.yaml to decisions/."""
    from tasks.commands import decide

    print(decide.migrate(decide.git_user(), date.today()))


@app.command()
def tune(
    product: Product,
    trials: Annotated[int, typer.Option(min=1, help="how many there are to be in the end")] = 20,
    knobs: Annotated[str, typer.Option(help="search only settings that begin so, such as train or network.d")] = "",
) -> None:
    """Search better settings of PRODUCT; write a patch of params.yaml."""
    from tasks.training.tuning import tune

    print(f"tune: {tune(load_product(product)[0], trials, knobs)}", flush=True)


@app.command()
def audit(database: Annotated[str, typer.Option(help="a copy of OSV's records; default: ask PyPI")] = "") -> None:
    """Look up known vulnerabilities of the pinned packages."""
    from tasks.commands.audit import audit

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
    from tasks.commands.audit import licences

    print(licences())


if __name__ == "__main__":
    sys.exit(exit_code_of(next(iter(sys.argv[1:]), "commands"), app))
