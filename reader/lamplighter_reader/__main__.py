"""Read nights from the command line.

    lamplighter-reader list   s3://lamplighter/predictions flight-delays
    lamplighter-reader verify s3://lamplighter/predictions flight-delays --dt 2013-06-30
    lamplighter-reader read   s3://lamplighter/predictions flight-delays --to night.parquet
    lamplighter-reader follow s3://lamplighter/predictions flight-delays --after 2013-06-30

`list`, `verify` and `follow` print a line of JSON for each night. Exit codes: 0, 65 for what a person mends, such as a
part that is damaged, and 75 for what waiting mends, such as a store that does not answer.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lamplighter_reader import (
    Manifest,
    TransientError,
    UserError,
    follow_nights,
    list_nights,
    read_manifest,
    read_predictions,
    verify_night,
)
from lamplighter_reader.runtime.errors import EXIT_INTERRUPTED, EXIT_TRANSIENT, EXIT_USER_ERROR


def line_of(manifest: Manifest) -> str:
    """Return what a line says of a night."""
    return json.dumps(
        {
            "dt": manifest.dt.isoformat(),
            "scored_day": manifest.scored_day.isoformat(),
            "rows": manifest.rows.published,
            "run": manifest.run,
            "generation": manifest.generation,
            "model_version": manifest.model.version,
        }
    )


def nights(asked: argparse.Namespace) -> Iterator[Manifest]:
    """Yield the nights that a command is about."""
    if asked.command == "list":
        yield from list_nights(asked.url, asked.product, asked.first, asked.last)
    elif asked.command == "verify":
        yield verify_night(asked.url, asked.product, asked.dt)
    elif asked.command == "follow":
        yield from follow_nights(asked.url, asked.product, asked.after, asked.poll_seconds, asked.seconds)
    else:
        manifest = read_manifest(asked.url, asked.product, asked.dt)
        frame = read_predictions(asked.url, asked.product, manifest.dt.isoformat())
        suffix = asked.to.suffix
        frame.to_csv(asked.to, index=False) if suffix == ".csv" else frame.to_parquet(asked.to, index=False)
        yield manifest


def main() -> int:
    """Do what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="lamplighter-reader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    given = {name: commands.add_parser(name) for name in ("list", "read", "verify", "follow")}
    for each in given.values():
        each.add_argument("url", help="s3://bucket/prefix: publish.url of the product")
        each.add_argument("product")
    for name in ("read", "verify"):
        given[name].add_argument("--dt", help="the night's as_of, YYYY-MM-DD; the newest where it is not given")
    given["read"].add_argument("--to", type=Path, required=True, help="a file that ends in .parquet or .csv")
    for name in ("--first", "--last"):
        given["list"].add_argument(name, help="YYYY-MM-DD")
    given["follow"].add_argument("--after", help="YYYY-MM-DD; the newest night where it is not given")
    given["follow"].add_argument("--poll-seconds", type=float, default=60.0, help="how often the store is asked")
    given["follow"].add_argument("--seconds", type=float, help="end after so long; without it, never")
    try:
        for manifest in nights(parser.parse_args()):
            print(line_of(manifest), flush=True)
    except (UserError, TransientError) as error:
        print(f"lamplighter-reader: {error}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_TRANSIENT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
