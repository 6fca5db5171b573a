"""Describe and check the arguments that several commands take."""

from collections.abc import Callable
from datetime import date
from getpass import getpass
from typing import Annotated

import typer

from tasks import params
from tasks.runtime.errors import UserError
from tasks.runtime.git import git


def given_date(text: str, name: str) -> date:
    """Return the date that a person typed. Raises UserError where it is none."""
    try:
        return params.parse_date(text)
    except ValueError as error:
        raise UserError(f"{name} {error}; write it like 2013-06-30") from None


def date_of(name: str) -> Callable[[str], date]:
    """Return what reads the date that a person typed under a name, and raises UserError where that is none."""

    def read(text: str) -> date:

        return given_date(text, name)

    return read


Product = Annotated[str, typer.Argument(help="a product of params.yaml")]
Uri = Annotated[str, typer.Argument(help="the s3:// address of a manifest or a part")]
Day = Annotated[date, typer.Argument(parser=date_of("DT"), metavar="DAY", help="the day of the rows, YYYY-MM-DD")]
OptionalDay = Annotated[
    date | None, typer.Argument(parser=date_of("DT"), metavar="DAY", help="YYYY-MM-DD; default: all days")
]
FirstNight = Annotated[
    date, typer.Option("--from", parser=date_of("FROM"), metavar="DATE", help="the first night's as_of")
]
LastNight = Annotated[date, typer.Option("--to", parser=date_of("TO"), metavar="DATE", help="the last night's as_of")]
RunDate = Annotated[
    date, typer.Argument(parser=date_of("AS_OF"), metavar="DATE", help="the as_of of a run, YYYY-MM-DD")
]
Why = Annotated[str, typer.Argument(help="the reason, for those who read the decision")]
Version = Annotated[str, typer.Argument(help="a version of the registry, such as v2.0.0")]
OptionalVersion = Annotated[str, typer.Option(help="the version that must be the champion")]
OptionalWhy = Annotated[str, typer.Option(help="the reason; default: why the row was in quarantine")]
AsOf = Annotated[
    date | None, typer.Option(parser=date_of("AS_OF"), metavar="DATE", help="YYYY-MM-DD; default: as_of of params.yaml")
]


def check_reason(why: str) -> None:
    """Raise UserError for a reason that is none."""
    if not why.strip():
        raise UserError(
            f'REASON must say why, got {why!r}; write REASON="the day after a holiday" or what was wrong with the day'
        )


def given_key(key: str) -> str:
    """Return the KEY that a person gave; `-` has it asked for, so that it stands in no shell's history."""
    return getpass("KEY: ") if key == "-" else key


def git_user() -> str:
    """Return the person's name, as git knows it. Raises UserError where it knows none."""
    name = git("config", "--default", "", "--get", "user.name").strip()
    if not name:
        raise UserError("git must know who decides, and does not; run git config user.name 'Your Name'")
    return name
