"""Decide what of an earlier run's verdicts is trusted: those by the same rules, of files that are as they were left."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from pathlib import Path

from tasks.params import Product
from tasks.quality.ledger import FOLDER, PLACE, JudgedDays, Ledger, link_files
from tasks.runtime.fingerprints import code_sha256, json_sha256
from tasks.runtime.paths import TABLES, Paths, Table

JUDGING_CODE = (
    "tasks/quality",
    "tasks/validate.py",
    "tasks/rows/casting.py",
    "tasks/rows/corrections.py",
    "tasks/rows/day_writer.py",
    "tasks/rows/keys.py",
    "tasks/rows/partitions.py",
    "tasks/rows/stored_days.py",
    "tasks/rows/versions.py",
    "model/features/kinds",
    "model/heads",
)
JUDGING_LIBRARIES = ("great-expectations", "numpy", "pandas", "pyarrow")
JUDGING_SETTINGS = ("declared_key", "declared_time", "columns", "target", "predict", "expectations", "drift")


def rules_of(product: Product) -> str:
    """Return what identifies by which rules, and by which code, days are judged."""
    settings = asdict(product)
    about = {name: settings[name] for name in JUDGING_SETTINGS}
    about["predict"] = product.predict.lead_days
    if product.slice_columns:
        about["slice_columns"] = product.slice_columns
    versions = {name: importlib.metadata.version(name) for name in JUDGING_LIBRARIES}
    return json_sha256({"settings": about, "code": code_sha256(*JUDGING_CODE), "versions": versions})


def carry_on(
    product: Product, as_of: date, paths: Paths, valid: Path, quarantine: Path
) -> tuple[Ledger, dict[Table, set[str]]]:
    """Return the ledger to go on with, and the days that it knows whose rows are not as they were left.

    Files that are trusted are in the new folders of valid and quarantined rows. What is not is said in a line, and
    judged anew: a new ledger is returned where that is everything.
    """
    new, none = Ledger(judged_by=rules_of(product)), {table: set[str]() for table in TABLES}
    if not (paths.valid / "rows").exists():
        return new, none
    try:
        ledger = Ledger.read(paths.valid)
    except (OSError, ValueError) as error:
        return _anew(new, none, f"{paths.valid / FOLDER} is not there, or is damaged ({type(error).__name__})")
    if ledger.judged_by != new.judged_by:
        return _anew(new, none, "expectations, columns or code are others than those by which days were judged")
    if ledger.as_of > as_of.isoformat():
        return _anew(new, none, f"{paths.valid} knows what became known later, up to {ledger.as_of}")
    marks = ledger.marks.of(paths.valid, paths.quarantine, PLACE)
    wrong = sorted(place for place, mark in {*marks.items()} ^ {*ledger.files.items()})
    if any(_table_of(place) is None for place in wrong):
        return _anew(new, none, f"{wrong[0]} is not as it was left")
    link_files(paths.valid, valid, {place.partition("/")[2] for place in wrong if place.startswith("valid/")})
    link_files(paths.quarantine, quarantine, {place.partition("/")[2] for place in wrong if place.startswith("quar")})
    distrusted = {table: {*_days_of(wrong, table, ledger.days[table])} for table in TABLES}
    if wrong:
        n_days = sum(map(len, distrusted.values()))
        print(f"{wrong[0]}{' and others are' if wrong[1:] else ' is'} not as left: {n_days} days are judged anew")
    return ledger, distrusted


def _anew(ledger: Ledger, none: dict[Table, set[str]], reason: str) -> tuple[Ledger, dict[Table, set[str]]]:
    print(f"{reason}: all days are judged anew", flush=True)
    return ledger, none


def _table_of(place: str) -> Table | None:
    """Return whose rows lie in a file; None for one that is no partition."""
    _, folder, *rest = place.split("/")
    return next((table for table in TABLES if folder == table and rest and rest[-1].endswith(".parquet")), None)


def _days_of(places: Iterable[str], table: Table, days: JudgedDays) -> set[str]:
    """Return those of the days whose rows lie, or should, in files of a day or of a month."""
    periods = {Path(place).stem.removeprefix("dt=") for place in places if _table_of(place) == table}
    return {day for period in periods for day in days.of_month(period[:7]) if period in (day, day[:7])}
