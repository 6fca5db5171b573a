"""Fetch what the source knows on as_of and add it to data/raw as it became known: new days, and versions beside them.

A row of event date D is known `horizon_days` before D and lies in rows/dt=D; its label is known `delay_days` after D
and lies in labels/ under the date on which it became known. What is stored is never rewritten: a row that comes late,
changes or is withdrawn is a version in changes/, a label that does so another one in labels/, each known from this
as_of on. Beyond `source.late_days` and `target.late_days` such versions are told once and left, unless a person has the
date fetched again (see `tasks.rows.decisions`), each time with a reason of its own.
Rows of a product without `time` are dated by the run that first saw them, rows without `key` named by their cells
(`tasks.rows.arrivals`). Declared personal data is taken out before anything is written.
Does not judge or cast values: that is `validate`.
"""

from dataclasses import asdict
from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.publication.salts.table import SaltTable
from tasks.rows.intake.report import IngestReport
from tasks.rows.intake.taking import Taking
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.sources.fetch import fetch


def ingest(product: Product, as_of: date) -> str:
    """Take what became known since the newest earlier run.

    Raises UserError when the source lacks a declared column or knows no row.
    """
    paths = Paths(product.name)
    table = SaltTable(Store(product.publish.url), product.name)
    with Taking(product, as_of, paths.raw, lambda index: table.minting(not index.as_of, index.salts)) as taking:
        report = _taken(taking)
    write_json(paths.report("ingest.json"), asdict(report))
    return report.summary


def _taken(taking: Taking) -> IngestReport:
    if taking.is_over:
        return taking.over()
    for piece in fetch(taking.product, taking.since, taking.as_of, taking.is_known, taking.evidence):
        if piece.rows is None:
            taking.skip(piece.name, piece.days)
        else:
            taking.add(piece.name, piece.digest, piece.rows, piece.evidence)
    return taking.store()


if __name__ == "__main__":
    stage.main(ingest)
