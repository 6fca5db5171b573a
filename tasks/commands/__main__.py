"""The one command line for people: `python -m tasks.commands <command>`, or `make <command>`.

Each command is a door to a plain function, imported when it is called, so that --help is quick; the doors stand in
`commands.py` of each folder. Exit codes are those of the stages: 65 for a mistake that a person mends, 75 for one that
waiting mends.
"""

import sys

import typer

from tasks.commands.data import commands as data
from tasks.commands.embedded import commands as embedded
from tasks.commands.models import commands as models
from tasks.commands.nights import commands as nights
from tasks.commands.simulation import commands as simulation
from tasks.commands.upkeep import commands as upkeep
from tasks.stage import exit_code_of

app = typer.Typer(
    name="python -m tasks.commands",
    help="What people do beside the stages; a stage is python -m tasks.<stage> <product>.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for folder in (embedded, nights, simulation, data, models, upkeep):
    app.add_typer(folder.app)


if __name__ == "__main__":
    sys.exit(exit_code_of(next(iter(sys.argv[1:]), "commands"), app))
