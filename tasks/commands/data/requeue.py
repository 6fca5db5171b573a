"""Look at quarantined rows, and feed them back corrected.

`overview` lists them by day and reason, `show` writes those of a day to a file to edit, and `requeue` turns what was
changed in it into lines of decisions/<product>/dt=D.jsonl, for review and commit. Nothing else is changed: `validate`
judges the corrected rows in the next run. See decisions/README.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pandas as pd

from tasks.params import RAW_ROW, UNREADABLE_COLUMNS, Product
from tasks.publication.object_store import Store
from tasks.publication.salts.table import SaltTable
from tasks.rows.decisions import Cells, Correction, file_of, lines_of, read_decisions, write_decisions
from tasks.rows.losses import FILE as LOSSES
from tasks.rows.partitions import Partitions
from tasks.rows.personal_data import protect
from tasks.runs.experiments import workspaces
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file
from tasks.runtime.paths import TABLES, Paths
from tasks.runtime.settings import settings

_ADDED = ("dt", "reasons", RAW_ROW, *UNREADABLE_COLUMNS)
"""Columns of the quarantine that are no cells."""


@dataclass(frozen=True, kw_only=True)
class QuarantinedRow:
    """A row in quarantine, as a person sees it."""

    kind: str
    """rows or labels."""
    row: str
    """The id."""
    reasons: str
    """The rules that it breaks."""
    unreadable: dict[str, str]
    """Reason, line and text of a row that could not be read."""
    cells: Cells
    """The cells as delivered, or as corrected before."""

    def line(self) -> str:
        """Return the line of the file to edit."""
        about = {"kind": self.kind, "row": self.row, "reasons": self.reasons, **self.unreadable}
        return json.dumps({**about, "cells": self.cells}, ensure_ascii=False)


RowsByName = dict[tuple[str, str], QuarantinedRow]
"""By kind and id."""


def overview(product: Product) -> str:
    """Return how many rows lie in quarantine, by day and reason."""
    bad = pd.concat([_quarantined(product, kind).assign(kind=kind) for kind in TABLES])
    if bad.empty:
        return f"{product.name}: no row is in quarantine"
    counts = bad.groupby(["dt", "kind", "reasons"], sort=True).size()
    lines = counts.reset_index(name="n").to_dict("records")
    return "\n".join(f"{each['dt']}  {each['n']:>6,} {each['kind']}  {each['reasons']}" for each in lines)


def edit_file(product: Product, day: date) -> Path:
    """Return the file in which a person edits a day's rows."""
    return settings().home / "quarantine" / product.name / f"dt={day.isoformat()}.jsonl"


def show(product: Product, day: date) -> str:
    """Write a day's quarantined rows to the file to edit. Raises UserError where there is none."""
    lines = [each.line() for each in _rows_of(product, day).values()]
    if not lines:
        raise UserError(
            f"products.{product.name}: {day} must have rows in quarantine, and has none; choose another day"
        )
    with atomic_file(edit_file(product, day)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
    return (
        f"{len(lines)} rows: edit the cells in {edit_file(product, day)}, delete the lines that should stay, then\n"
        f"make requeue PRODUCT={product.name} DT={day}"
    )


def requeue(product: Product, known: date, day: date, person: str, decided: date, why: str = "") -> str:
    """Write what was changed in the edited file as corrections known from the as_of `known`.

    Those of other nights are kept as they are. Without `why` a correction has the reasons for which its row was in
    quarantine. Raises UserError for a line that is none, a row that is not in quarantine, or a column that it lacks.
    """
    file, rows = edit_file(product, day), _rows_of(product, day)
    if not file.exists():
        raise UserError(f"{file} must exist, and does not; run make quarantine PRODUCT={product.name} DT={day}")
    changed = []
    for place, line in lines_of(file):
        row, cells = _edited(product, rows, line, place)
        if cells:
            correction = Correction(
                decided=decided.isoformat(),
                person=person,
                why=why.strip() or row.reasons,
                of=row.kind,
                row=row.row,
                known=known.isoformat(),
                cells=cells,
            )
            changed.append(correction)
    if not changed:
        raise UserError(f"{file}: a cell must have been changed, and none is; edit the cells and save the file")
    target = file_of(product.name, day)
    decisions = read_decisions(target)
    merged: dict[tuple[str, str, str], Correction] = {}
    for each in [*(each for each in decisions if isinstance(each, Correction)), *changed]:
        name = each.of, each.row, each.known
        merged[name] = replace(each, cells={**(merged[name].cells if name in merged else {}), **each.cells})
    others = [each for each in decisions if not isinstance(each, Correction)]
    write_decisions(target, [*others, *merged.values()])
    return f"{len(changed)} rows corrected: read {target}, commit it and run again"


def _edited(product: Product, rows: RowsByName, line: str, place: str) -> tuple[QuarantinedRow, Cells]:
    """Return the row of a line of the edited file, and the cells that were changed in it."""
    try:
        content = json.loads(line)
        row, cells = rows[content["kind"], content["row"]], content["cells"]
        unknown = sorted(set(cells) - set(row.cells))
    except (ValueError, TypeError, AttributeError, KeyError):
        raise UserError(f"{place}: a line must be a row of the quarantine, and is not; write the file anew") from None
    if unknown or any(isinstance(cell, dict | list) for cell in cells.values()):
        raise UserError(
            f"{place}: cells must be single values of {', '.join(row.cells)}, got "
            f"{', '.join(unknown) or 'others'}; mend the line"
        )
    changed = {name: cell for name, cell in cells.items() if cell != row.cells[name]}
    if not changed:
        return row, {}
    salts = SaltTable(Store(product.publish.url), product.name).mint
    kept = protect(pd.DataFrame([changed], dtype=object), _protecting(product, changed), salts)
    if not len(kept):
        raise UserError(f"{place}: a cell must not name somebody who was forgotten, and does; delete the line")
    return row, {name: kept[name][0] for name in changed}


def _protecting(product: Product, cells: Mapping[str, object]) -> Product:
    """Return the product with personal data declared in the given columns alone."""
    return replace(product, pii={name: way for name, way in product.pii.items() if name in cells})


def _rows_of(product: Product, day: date) -> RowsByName:
    """Return a day's quarantined rows."""
    found: RowsByName = {}
    for kind in TABLES:
        for row in _quarantined(product, kind, day).astype(object).to_dict("records"):
            name = kind, str(row[RAW_ROW])
            found[name] = QuarantinedRow(
                kind=kind,
                row=name[1],
                reasons=row["reasons"],
                unreadable={name: row[name] for name in UNREADABLE_COLUMNS if not pd.isna(row.get(name))},
                cells={str(name): None if pd.isna(cell) else cell for name, cell in row.items() if name not in _ADDED},
            )
    return found


def _quarantined(product: Product, kind: str, day: date | None = None) -> pd.DataFrame:
    """Return the rows, or those of a day, in the newest quarantine on this disk.

    It is that of the stages run in this folder, or of a run's workspace.
    """
    own = Paths(product.name).quarantine
    places = [own, *(workspace / own for workspace in workspaces(product.name))]
    found = [place for place in places if (place / LOSSES).exists()]
    if not found:
        raise UserError(
            f"{own} must hold what validate quarantined, and does not; run dvc repro validate@{product.name}, or take "
            f"that of a run: dvc exp apply NAME && dvc pull {own}"
        )
    newest = Partitions(max(found, key=lambda place: (place / LOSSES).stat().st_mtime) / kind)
    return newest.read(newest.days(until=day, since=day))
