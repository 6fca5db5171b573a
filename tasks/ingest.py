"""Fetch what the source knows on as_of and append it to data/raw, by date.

A row of event date D is known `horizon_days` before D and lies in rows/dt=D; its label is known `delay_days`
after D and lies in labels/ under the date on which it became known. A date that is stored is not
rewritten: where the source delivers another past now, the report says so and the stored rows are kept, unless a
person has the date fetched again (see `tasks.rows.decisions`), each time with a reason of its own.
Rows of a product without `time` are dated by the run that first saw them, rows without `key` named by their cells
(`tasks.rows.arrivals`). Declared personal data is taken out before anything is written.
Does not judge or cast values: that is `validate`.
"""

from dataclasses import asdict, replace
from datetime import date

import pandas as pd

from tasks import stage
from tasks.params import Product
from tasks.rows.arrivals import add_names_and_dates, with_stored_keys
from tasks.rows.decisions import reason_for_anew, refetched_days
from tasks.rows.delivery import first_day_to_fetch, store_delivery
from tasks.rows.personal_data import protect
from tasks.rows.raw_archive import RawIndex
from tasks.runtime.files import write_json
from tasks.runtime.paths import Paths
from tasks.sources.fetch import fetch


def ingest(product: Product, as_of: date) -> str:
    """Append the new dates and report which stored ones differ now.

    Raises UserError when the source lacks a declared column or knows no row.
    """
    paths = Paths(product.name)
    index = RawIndex.load(paths.raw)
    if not index.as_of:
        index.anew = reason_for_anew(product.name, as_of)
    refetched = index.refetched(refetched_days(product.name), product.scored_day(as_of).isoformat())
    start = first_day_to_fetch(product, index, refetched)
    pieces = [piece.rows for piece in fetch(product, start, as_of) if piece.rows is not None]
    frame = protect(pd.concat(pieces, ignore_index=True), product)
    frame, n_rewritten = with_stored_keys(frame, product, index)
    frame = add_names_and_dates(frame, product, as_of, index)
    report = store_delivery(frame, product, as_of, start, index, refetched)
    report = replace(report, keys_written_otherwise=n_rewritten)
    write_json(paths.report("ingest.json"), asdict(report))
    return report.summary


if __name__ == "__main__":
    stage.main(ingest)
