"""Erase a person's rows from everything that a product keeps.

    make erase PRODUCT=flight-delays KEY=... REASON="..."          writes the decision, and shows what would go
    make erase PRODUCT=flight-delays KEY=... REASON="..." YES=1    erases, once the decision is in the origin

KEY is a row's key, `column=value` for all rows with that value, or `-` to be asked for it, so that it stands in no
shell's history. The decision, decisions/<product>/erased.json, has a keyed hash of it and keeps the rows from coming
back. What is erased where, and what is not: docs/erasing.md.
"""

import fcntl
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

from tasks.commands.arguments import check_reason, given_key
from tasks.erasure.erasing import Erasing, Found, erase, open_erasing
from tasks.erasure.nights import OWN, Republished
from tasks.erasure.proof import in_git, search
from tasks.erasure.subject import Subject, subject_of
from tasks.params import Product
from tasks.publication.contracts import Claims
from tasks.publication.manifests import read_checked
from tasks.publication.object_store import Store
from tasks.rows.decisions import FOLDER, Correction, read_decisions, write_decisions
from tasks.rows.intake.erased import Tombstone, Tombstones, file_of, keyed_hash, known_key, made_key
from tasks.runs.locks import locked, removal_lock
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.git import git, try_git
from tasks.runtime.settings import settings

SHOWN = 20


def erase_rows(
    product: Product,
    key: str,
    why: str,
    person: str,
    decided: date,
    *,
    yes: bool = False,
    dry: bool = False,
    compact: Callable[[], None] = lambda: None,
) -> str:
    """Decide that rows are erased, and show what goes; with `yes`, erase them once the origin has the decision.

    `compact` lets the embedded store give up what was deleted. Raises UserError for a key or reason that is none, or
    where something shows the rows in the end; TransientError while tasks are at work.
    """
    check_reason(why)
    key = given_key(key)
    secret = known_key() or (secrets.token_bytes() if dry else made_key())
    subject = subject_of(product, key, secret)
    if subject.is_in_bytes(why.encode()) or subject.without(why) != why:
        raise UserError(
            "REASON must not name what is erased, as it is kept for good; say for example 'asked for on ...'"
        )
    stone = _decided(subject, why, person, decided, write=not dry)
    known = stone.hmac in _known_to_origin(product.name)
    with ExitStack() as locks:
        if yes and not dry:
            lock_alone(locks)
        with open_erasing(subject) as erasing:
            found = erasing.found()
            print(shown(erasing, found), flush=True)
            if dry:
                return "erase: nothing was changed"
            for file in forget_corrections(product.name, found.corrected):
                print(f"{file}: corrections of these rows are taken out; commit it too", flush=True)
            if not known:
                return _next_steps(product.name)
            if not yes:
                return "erase: nothing was removed; the same with YES=1 erases all of it, for good"
            tell_open_runs(product)
            republished = erase(erasing, stone)
        compact()
        with open_erasing(subject) as erasing:
            left = search(erasing)
            if left:
                more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
                raise UserError(
                    f"erase: these places show it still: {', '.join(left[:SHOWN])}{more}; where a program writes "
                    "there, stop it (make down), and run the same again"
                )
            erasing.done()
            return _report(erasing, republished)


def _decided(subject: Subject, why: str, person: str, decided: date, *, write: bool) -> Tombstone:
    """Return the decision that this is erased, written into the working tree where it is new."""
    product = subject.product.name
    file = file_of(product)
    stones = Tombstones.read(file)
    check = keyed_hash(subject.secret, product, {})
    if stones.erased and stones.key != check:
        raise UserError(
            f"{file}: the key by which erased rows are known must be that of this file, and this machine has another "
            "one; copy it from the machine that made the file"
        )
    if known := [each for each in stones.erased if each.hmac == subject.hmac]:
        return known[0]
    stone = Tombstone(
        columns=tuple(sorted(subject.values)),
        hmac=subject.hmac,
        decided=decided.isoformat(),
        person=person.strip(),
        why=why.strip(),
    )
    if write:
        replace(stones, key=check, erased=(*stones.erased, stone)).write(file)
    return stone


def forget_corrections(product: str, corrected: set[tuple[str, str, str]]) -> list[Path]:
    """Take corrections of rows out of the working tree, which no run could apply; return the files that changed."""
    changed = []
    for file in sorted((FOLDER / product).glob("dt=*.jsonl")):
        decisions, day = read_decisions(file), file.stem.removeprefix("dt=")
        kept = [
            each for each in decisions if not (isinstance(each, Correction) and (each.of, day, each.row) in corrected)
        ]
        if len(kept) < len(decisions):
            changed.append(file)
            if kept:
                write_decisions(file, kept)
            else:
                file.unlink()
    return changed


def _known_to_origin(product: str) -> set[str]:
    """Return the keyed hashes that the newest commit of the origin has."""
    with tempfile.TemporaryDirectory() as folder:
        git("clone", "--quiet", "--bare", "--depth", "1", settings().origin, folder)
        text = try_git("show", f"HEAD:{file_of(product).as_posix()}", cwd=Path(folder))
    return {each.hmac for each in Tombstones.from_json(text).erased} if text else set()


def _next_steps(product: str) -> str:
    return (
        f"erase: nothing was removed yet. Read {file_of(product)}, commit it and push it to the origin, so that no run "
        "brings the rows back; copy "
        f"{settings().home / 'erasure.key'} to every machine that ingests; then run the same with YES=1"
    )


def lock_alone(locks: ExitStack) -> None:
    """Keep all tasks of this machine away until the context ends. Raises TransientError where one is at work."""
    try:
        locks.enter_context(locked(removal_lock(), fcntl.LOCK_EX | fcntl.LOCK_NB))
    except BlockingIOError:
        raise TransientError(
            "no task may be at work on this machine while rows are erased, and one is; wait for its end, then run make "
            "erase again"
        ) from None


def tell_open_runs(product: Product) -> None:
    """Print the nights that a run may still publish: it ends by itself when it sees that rows were erased."""
    store = Store(product.publish.url)
    for key in store.list(f"{product.name}/_claims/"):
        day = date.fromisoformat(key.rpartition("/dt=")[2].removesuffix(".json"))
        claims, _ = read_checked(store, key, Claims)
        if claims and any(not name.startswith(OWN) for name in claims.open.values()):
            print(f"erase: a run of {day} was opened and has not published: it ends when it sees this", file=sys.stderr)


def shown(erasing: Erasing, found: Found) -> str:
    """Return what holds the rows, for a person to read."""
    gone = {*erasing.journal.objects}
    n_rows, n_days = sum(found.rows.values()), len(found.rows)
    lines = [
        f"rows in the raw data              {n_rows:,} of {n_days:,} days",
        f"files of data in cache or remote  {found.objects:,}",
        f"runs whose data are made anew     {len(found.experiments):,}{_named(found.experiments)}",
        f"nights that are published anew    {len(found.nights):,}{_named(found.nights)}",
        f"models that have learnt from them {len(found.models):,}{_named(found.models)}",
    ]
    if gone:
        lines.append(f"an earlier try of this has found  {len(gone):,} files and folders")
    return "\n".join(lines)


def _named(names: list[str]) -> str:
    return f": {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}" if names else ""


def _report(erasing: Erasing, republished: list[Republished]) -> str:
    product, journal = erasing.product, erasing.journal
    n_rows = sum((journal.rows or {}).values())
    lines = [
        f"erase: {n_rows:,} rows of {product} are gone from {len(journal.objects):,} files and folders; "
        f"{len(republished):,} nights were published anew; a search through everything found nothing",
    ]
    if journal.models:
        lines.append(
            f"models that had learnt from them are deprecated; train {product} again, and what passes the gates takes "
            f"the champion's place: trigger the DAG train__{product}, or make run PRODUCT={product}"
        )
    if commits := in_git(erasing):
        lines.append(
            f"git's history shows it in {len(commits)} commits, which are left ({'; '.join(commits[:3])}): git "
            "filter-repo rewrites them"
        )
    return "\n".join(lines)
