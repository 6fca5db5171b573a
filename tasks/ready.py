"""Count the rows of the scored day at the source, and store nothing: what a night that waits for late data asks.

Looks at the source itself at each call, never at what has been ingested. Whether the count is enough, and until when a
night waits, is `tasks.runs.readiness`.
"""

from datetime import date

from pydantic.dataclasses import dataclass

from tasks import stage
from tasks.params import Product
from tasks.rows.casting import event_day
from tasks.runtime.records import RECORD, Record
from tasks.sources.fetch import fetch


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Delivered(Record):
    """What lies at the source."""

    scored_day: date
    """The day whose rows the night scores."""
    rows: int
    """Rows of that day."""

    def __str__(self) -> str:
        """Return the stage's line."""
        return f"{self.rows:,} rows of {self.scored_day} at the source"


def ready(product: Product, as_of: date) -> Delivered:
    """Return how many rows of the scored day the source has now.

    Raises UserError and TransientError as the source does.
    """
    day = product.scored_day(as_of)
    rows = 0
    for piece in fetch(product, day, as_of):
        if piece.rows is not None:
            is_of_day = event_day(piece.rows[product.time]) == day.isoformat() if product.has_time else None
            rows += len(piece.rows) if is_of_day is None else int(is_of_day.sum())
    return Delivered(scored_day=day, rows=rows)


if __name__ == "__main__":
    stage.main(ready)
