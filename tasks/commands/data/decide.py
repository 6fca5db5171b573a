"""Decide about a day that `validate` stopped: let it pass, or have it fetched again.

Each writes a line of decisions/<product>/dt=D.jsonl and nothing else: a person reads it, commits it and runs again. The
reason to accept a day goes into the validation report and the manifest of the night, the reason to fetch one again into
the report of `ingest`. `migrate` moves the decisions of before there was this folder.
"""

import json
import re
from datetime import date
from pathlib import Path

from tasks import params
from tasks.commands.arguments import check_reason, given_date
from tasks.params import Product
from tasks.rows.decisions import (
    EARLIER_FOLDER,
    FOLDER,
    Accepted,
    Anew,
    Correction,
    Decision,
    Refetch,
    file_of,
    lines_of,
    read_decisions,
    write_decisions,
)
from tasks.runtime.errors import UserError


def accept(product: Product, day: date, why: str, person: str, decided: date) -> str:
    """Let a day pass although it differs in kind. Raises UserError for a reason that is none."""
    file = _add(product, day, Accepted, why, person, decided)
    return f"{day} of {product.name} may pass; read {file}, commit it and run again"


def refetch(product: Product, day: date, why: str, person: str, decided: date) -> str:
    """Have a stored day fetched again from its mended source. Raises UserError for a reason that is none."""
    file = _add(product, day, Refetch, why, person, decided)
    return f"{day} of {product.name} will be fetched anew; read {file}, commit it and run again"


def anew(product: Product, as_of: date, why: str, person: str, decided: date) -> str:
    """Let the run of an as_of go on without lost history. Raises UserError for a reason that is none."""
    file = _add(product, as_of, Anew, why, person, decided)
    return f"the run of {as_of} may begin without the history that is lost; read {file}, commit it and run again"


def _add(product: Product, day: date, kind: type[Decision], why: str, person: str, decided: date) -> Path:
    file = file_of(product.name, day)
    check_reason(why)
    decision = kind(decided=decided.isoformat(), person=person.strip(), why=why.strip())
    write_decisions(file, [*read_decisions(file), decision])
    return file


def migrate(person: str, decided: date) -> str:
    """Move decisions from corrections/ and params.yaml to decisions/; return the keys that a person then deletes."""
    moved: dict[Path, list[Decision]] = {}
    earlier = sorted(EARLIER_FOLDER.glob("*/dt=*.jsonl"))
    for file in earlier:
        target = FOLDER / file.relative_to(EARLIER_FOLDER)
        moved.setdefault(target, []).extend(_earlier_corrections(file, person))
    keys = []
    for name, entry in params.raw(params.PARAMS_FILE.read_text("utf-8"))["products"].items():
        for part, key, kind in (
            ("day", "accepted", Accepted),
            ("drift", "accepted", Accepted),
            ("source", "retake", Refetch),
        ):
            days = (entry.get(part) or {}).get(key)
            if days is not None:
                keys.append(f"products.{name}.{part}.{key}")
            for day, reason in (days or {}).items():
                target = file_of(name, given_date(str(day), keys[-1]))
                moved.setdefault(target, []).append(_earlier_decision(kind, str(reason), person, decided))
    for target, decisions in moved.items():
        known = read_decisions(target)
        write_decisions(target, [*known, *(each for each in decisions if each not in known)])
    for file in earlier:
        file.unlink()
    lines = [f"{sum(map(len, moved.values()))} decisions written to {FOLDER}/; read and commit them"]
    if keys:
        lines.append(f"delete from {params.PARAMS_FILE}: {', '.join(keys)}")
    return "\n".join(lines)


def _earlier_decision(kind: type[Decision], reason: str, person: str, decided: date) -> Decision:
    """Return a decision of params.yaml, whose reason ended with the person's name in brackets."""
    named = re.fullmatch(r"(.*\S) \(([^()]+)\)", reason, re.DOTALL)
    why, author = named.groups() if named else (reason, person)
    return kind(decided=decided.isoformat(), person=author, why=why)


def _earlier_corrections(file: Path, person: str) -> list[Correction]:
    found = []
    for place, line in lines_of(file):
        try:
            content = json.loads(line)
            found.append(
                Correction(
                    decided=content["known"],
                    person=person,
                    why="moved from corrections/",
                    of=content["kind"],
                    row=content["row"],
                    known=content["known"],
                    cells=content["cells"],
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{place}: a line must be a correction, and is not ({error}); mend or delete it") from None
    return found
