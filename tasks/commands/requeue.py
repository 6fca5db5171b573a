"""Look at quarantined rows, and feed them back corrected.

`python -m tasks.commands.requeue <product>` lists them by day and reason, `--day D --show` writes that day's to a file
to edit, and `--day D` turns what was changed in it into corrections/<product>/dt=D.jsonl, for review and commit.
Nothing else is changed: `validate` judges the corrected rows in the next run. See corrections/README.md.
"""

import json
import sys
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from tasks import params, stage
from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, Product
from tasks.rows.corrections import KINDS, Correction, file_of, lines_of, read_corrections
from tasks.rows.personal_data import protect
from tasks.runs.experiments import workspaces
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings

_ABOUT = ("dt", "reasons", RAW_ROW, *UNREADABLE_COLUMNS)


def overview(product: Product) -> str:
    """How many rows lie in quarantine, by day and reason."""
    bad = pd.concat([_quarantined(product, kind).assign(kind=kind) for kind in KINDS])
    if bad.empty:
        return f"{product.name}: no row is in quarantine"
    counts = bad.groupby(["dt", "kind", "reasons"], sort=True).size()
    told = counts.reset_index(name="n").to_dict("records")
    return "\n".join(f"{each['dt']}  {each['n']:>6,} {each['kind']}  {each['reasons']}" for each in told)


def edit_file(product: Product, day: date) -> Path:
    """Where a person edits a day's rows."""
    return settings().home / "quarantine" / product.name / f"dt={day.isoformat()}.jsonl"


def show(product: Product, day: date) -> str:
    """Write a day's quarantined rows to the file to edit. Raises UserError where there is none."""
    lines = [json.dumps(each, ensure_ascii=False) for each in _rows_of(product, day).values()]
    if not lines:
        raise UserError(
            f"products.{product.name}: {day} must have rows in quarantine, and has none; choose another day"
        )
    with atomic_file(edit_file(product, day)) as aside:
        aside.write_text("\n".join(lines) + "\n", "utf-8")
    return (
        f"{len(lines)} rows: edit the cells in {edit_file(product, day)}, delete the lines that should stay, then\n"
        f"make requeue PRODUCT={product.name} DT={day}"
    )


def requeue(product: Product, as_of: date, day: date) -> str:
    """Write what was changed in the edited file as corrections known from `as_of`, beside those of other nights.

    Raises UserError for a line that is none, a row that is not in quarantine, or a column that it does not have.
    """
    file, there = edit_file(product, day), _rows_of(product, day)
    if not file.exists():
        raise UserError(f"{file} must exist, and does not; run make quarantine PRODUCT={product.name} DT={day}")
    changed = []
    for place, line in lines_of(file):
        changed += _changed(product, there, line, place, as_of)
    if not changed:
        raise UserError(f"{file}: a cell must have been changed, and none is; edit the cells and save the file")
    target = file_of(product.name, day)
    kept: dict[tuple[str, str, str], Correction] = {}
    for each in [*(read_corrections(target) if target.exists() else []), *changed]:
        name = each.kind, each.row, each.known  # what is known from another night stays as it is
        kept[name] = replace(each, cells={**(kept[name].cells if name in kept else {}), **each.cells})
    text = "".join(json.dumps(asdict(kept[name]), ensure_ascii=False) + "\n" for name in sorted(kept))
    with atomic_file(target) as aside:
        aside.write_text(text, "utf-8")
    return f"{len(changed)} rows corrected: read {target}, commit it and run again"


def _changed(
    product: Product, there: dict[tuple[str, str], Any], line: str, place: str, as_of: date
) -> list[Correction]:
    """The correction that a line of the edited file makes, if it makes one."""
    try:
        edited = json.loads(line)
        before, cells = there[edited["kind"], edited["row"]], edited["cells"]
        unknown = sorted(set(cells) - set(before["cells"]))
    except (ValueError, TypeError, AttributeError, KeyError):
        raise UserError(f"{place}: a line must be a row of the quarantine, and is not; write the file anew") from None
    if unknown or any(isinstance(cell, dict | list) for cell in cells.values()):
        raise UserError(
            f"{place}: cells must be single values of {', '.join(before['cells'])}, got "
            f"{', '.join(unknown) or 'others'}; mend the line"
        )
    new = {name: cell for name, cell in cells.items() if cell != before["cells"][name]}
    kept = protect(pd.DataFrame([new], dtype=object), _only(product, new)) if new else pd.DataFrame()
    new = {name: kept[name][0] for name in new}
    return [Correction(kind=edited["kind"], row=edited["row"], known=as_of.isoformat(), cells=new)] if new else []


def _only(product: Product, cells: dict[str, Any]) -> Product:
    """The product with the personal data of some columns alone."""
    return replace(product, pii={name: how for name, how in product.pii.items() if name in cells})


def _rows_of(product: Product, day: date) -> dict[tuple[str, str], dict[str, Any]]:
    """A day's quarantined rows by kind and name, as a person is shown them."""
    found = {}
    for kind in KINDS:
        bad = _quarantined(product, kind)
        for row in bad[bad["dt"] == day.isoformat()].astype(object).to_dict("records"):
            told = {name: row[name] for name in UNREADABLE_COLUMNS if not pd.isna(row.get(name))}
            cells = {name: None if pd.isna(cell) else cell for name, cell in row.items() if name not in _ABOUT}
            about = {"kind": kind, "row": row[RAW_ROW], "reasons": row["reasons"], **told, "cells": cells}
            found[kind, str(row[RAW_ROW])] = about
    return found


def _quarantined(product: Product, kind: str) -> pd.DataFrame:
    """The newest quarantine on this disk: of the stages run here, or of a run's workspace."""
    own = Paths(product.name).quarantine
    places = [own, *(workspace / own for workspace in workspaces(product.name))]
    files = [place / f"{kind}.parquet" for place in places if (place / f"{kind}.parquet").exists()]
    if not files:
        raise UserError(
            f"{own} must hold what validate quarantined, and does not; run dvc repro validate@{product.name}, or take "
            f"that of a run: dvc exp apply NAME && dvc pull {own}"
        )
    return pd.read_parquet(max(files, key=lambda file: file.stat().st_mtime))


def main() -> None:
    """The command line."""
    parser = stage.parser(requeue)
    parser.add_argument("--day", help="the day under which the rows arrived, YYYY-MM-DD")
    parser.add_argument("--show", action="store_true", help="write the day's rows to a file to edit")
    parser.add_argument("--as-of", help="the night from which on the corrections are known")
    given = parser.parse_args()

    def work() -> None:
        product, as_of = stage.load_product(given.product)
        if not given.day:
            print(overview(product))
            return
        day, known = _date(given.day, "DT"), _date(given.as_of, "AS_OF") if given.as_of else as_of
        print(show(product, day) if given.show else requeue(product, known, day))

    sys.exit(stage.exit_code_of("requeue", work))


def _date(text: str, name: str) -> date:
    try:
        return params.parse_date(text)
    except ValueError as error:
        raise UserError(f"{name} {error}; write it like 2013-06-30") from None


if __name__ == "__main__":
    main()
