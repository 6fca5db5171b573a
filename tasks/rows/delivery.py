"""Turn what a source delivered into new rows and labels by date, and store them beside a report.

A row of event date D is known `horizon_days` before D and lies in rows/dt=D; its label is known `delay_days` after D
and lies in labels/ under the date on which it became known. Where rows have no date, it is that of their arrival
(`tasks.rows.arrivals`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd

from tasks.params import Product
from tasks.rows.casting import as_text, cast_target, event_day, has_label, parse_time
from tasks.rows.keys import key_text
from tasks.rows.partitions import read_partitions
from tasks.rows.raw_archive import ChangedDay, RawIndex, undated_row_ids
from tasks.runtime.errors import UserError

DAYS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """The content of ingest.json: how many rows and labels came, and which stored dates differ now."""

    as_of: str
    """The run's as_of."""
    rows_delivered: int
    """All rows of the delivery: the sum of the four counts below."""
    rows_new: int
    """Rows stored by this run."""
    rows_of_stored_days: int
    """Rows of dates that were stored before."""
    rows_waiting_without_a_date: int
    """Rows without an event date that are stored with the next new date."""
    rows_later_than_the_night: int
    """Rows of dates after the scored day."""
    days_new: list[str]
    """Dates stored by this run."""
    days_refetched: dict[str, str]
    """Dates that were fetched again, each with the reason."""
    labels_new: int
    """Labels stored by this run."""
    labels_changed: int
    """Stored labels that the source withdraws or delivers with another value now."""
    rows_total: int
    """All stored rows."""
    changed_past: dict[str, ChangedDay]
    """Stored dates that the source delivers otherwise now."""
    labels_total: int
    """All stored labels."""
    keys_written_otherwise: int = 0
    """Keys that came as 1000.0 where 1000 is stored, or the other way round, and are taken as the stored ones."""

    @property
    def summary(self) -> str:
        """Return the stage's line."""
        text = f"{self.rows_new:,} new rows on {len(self.days_new)} days, {self.labels_new:,} new labels"
        if self.changed_past:
            days = list(self.changed_past)
            shown = ", ".join(days[:DAYS_SHOWN])
            shown += f" and {len(days) - DAYS_SHOWN} more" if len(days) > DAYS_SHOWN else ""
            text += f"; THE PAST HAS CHANGED on {len(days)} stored days (kept as stored): {shown}"
        if self.labels_changed:
            text += f"; {self.labels_changed:,} STORED LABELS HAVE ANOTHER VALUE NOW (kept as stored)"
        if self.rows_later_than_the_night:
            text += (
                f"; {self.rows_later_than_the_night:,} rows are later than the scored day, and left for later nights"
            )
        if self.rows_waiting_without_a_date:
            text += f"; {self.rows_waiting_without_a_date:,} rows without a date wait for a new day"
        if self.keys_written_otherwise:
            text += (
                f"; {self.keys_written_otherwise:,} KEYS CAME AS WHOLE NUMBERS WRITTEN OTHERWISE THAN BEFORE, with or "
                "without .0 (taken as the stored ones)"
            )
        return text


def first_day_to_fetch(product: Product, index: RawIndex, refetched: Mapping[str, str]) -> date | None:
    """Return the first event date that a Python source is asked for; None for all rows, as where they have no dates.

    Asked for are new dates, those whose labels are due, those that are compared with what is stored, and those that a
    person has fetched again.
    """
    if not index.rows or product.source.kind != "python" or not product.has_time:
        return None
    settled = product.predict.horizon_days + product.target.delay_days + product.source.recheck_days
    first = date.fromisoformat(max(index.rows)) - timedelta(days=settled)
    return min([first, *map(date.fromisoformat, refetched)])


def store_delivery(
    frame: pd.DataFrame, product: Product, as_of: date, start: date | None, index: RawIndex, refetched: dict[str, str]
) -> IngestReport:
    """Store the new dates of a delivery that was fetched from `start` on, and commit the index.

    Raises UserError where nothing is stored and the delivery has no row up to the scored day.
    """
    last = product.scored_day(as_of).isoformat()
    rows = frame.drop(columns=product.target.name).assign(dt=event_day(frame[product.time]))
    dated, undated = rows[rows["dt"] <= last], rows[rows["dt"].isna()]
    if dated.empty and not any(day <= last for day in index.rows):
        raise UserError(_nothing_to_store(rows, product, last))
    if index.as_of:
        index.remove_uncommitted()
    index.forget_partitions(refetched, product)
    changed = index.changed_days(dated, product, start, last)
    ids = undated_row_ids(undated, product)
    arriving = assign_undated_rows(undated, ids, dated, index)
    n_waiting = int((~ids.isin(index.undated)).sum())
    new_rows = index.append(pd.concat([dated, arriving], ignore_index=True), "rows", product)
    labels, n_labels_changed = due_labels(frame, product, as_of, index)
    new_labels = index.append(labels, "labels", product)
    if as_of.isoformat() >= index.as_of:  # a later run has not read what was known then
        new_labels = pd.concat([new_labels, index.extend_labels(labels.drop(new_labels.index), as_of.isoformat())])
    index.note_refetched(refetched)
    index.note_run(as_of)
    index.save()
    index.remove_uncommitted()  # a date that was fetched again, and of which the source knows no row any more
    return IngestReport(
        as_of=as_of.isoformat(),
        rows_delivered=len(rows),
        rows_new=len(new_rows),
        rows_of_stored_days=len(dated) + len(undated) - len(new_rows) - n_waiting,
        rows_waiting_without_a_date=n_waiting,
        rows_later_than_the_night=len(rows) - len(dated) - len(undated),
        days_new=sorted(set(new_rows["dt"])),
        days_refetched=refetched,
        labels_new=len(new_labels),
        labels_changed=n_labels_changed,
        rows_total=index.total("rows"),
        changed_past=changed,
        labels_total=index.total("labels"),
    )


def _nothing_to_store(rows: pd.DataFrame, product: Product, last: str) -> str:
    """Return the message where a first delivery has no row up to a day: none at all, later ones only, or no dates."""
    source = f"params.yaml: products.{product.name}.source"
    if len(rows) and rows["dt"].isna().all():
        n, n_given = len(rows), int(rows[product.time].notna().sum())
        return (
            f"{source}: {product.time} must be a date, and no row has one: of {n:,} rows {n_given / n:.0%} have a cell "
            f"there that is none, and {(n - n_given) / n:.0%} have no cell; dates are written like 2013-06-30: "
            'mend the source, or set source.time_format to how it writes them, such as "%d.%m.%Y"'
        )
    oldest = rows["dt"].dropna().min()
    later = f": its oldest row is of {oldest}" if isinstance(oldest, str) else ""
    return f"{source} knows no row up to {last}; check as_of and the source{later}"


def assign_undated_rows(undated: pd.DataFrame, ids: pd.Series, dated: pd.DataFrame, index: RawIndex) -> pd.DataFrame:
    """Put the rows without an event date that are not stored yet into the newest new partition.

    With no new partition they are held back: a partition of undated rows alone would be closed before its own rows
    arrive.
    """
    new_days = dated["dt"][~dated["dt"].isin(index.rows)]
    new = ~ids.isin(index.undated) & (len(new_days) > 0)
    index.undated |= {*ids[new]}
    return undated[new].assign(dt=new_days.max())


def due_labels(frame: pd.DataFrame, product: Product, as_of: date, index: RawIndex) -> tuple[pd.DataFrame, int]:
    """Return the labels known on as_of and not stored yet, with the date on which they became known as `dt`.

    A stored label that cannot be read is none: one that can be is new. Beside them, how many of the stored labels have
    another value now, or none.
    """
    known = parse_time(frame[product.time]) + pd.Timedelta(days=product.target.delay_days)
    labels = frame[[*product.key, product.target.name]].assign(dt=known.dt.strftime("%Y-%m-%d"))
    keys, labelled = key_text(frame, product.key), has_label(frame[product.target.name])
    stored = read_partitions(index.files("labels"), [*product.key, product.target.name])
    stored_keys, is_readable = key_text(stored, product.key), _is_readable(stored, product)
    then = _first_labels(stored[is_readable], stored_keys[is_readable], product)
    is_stored = keys.isin(then.index)
    is_unreadable_still = keys.isin(stored_keys) & ~is_stored & ~_is_readable(frame, product)
    # Compared as dates: the label of the last day of 9999 is known in a year of five digits.
    due = labelled & (known.dt.normalize() <= pd.Timestamp(as_of))
    now = _first_labels(labels[is_stored & due], keys[is_stored & due], product)
    withdrawn = set(keys[is_stored & ~labelled].dropna()) - set(keys[labelled])
    n_changed = int((now != then[now.index]).sum()) + len(withdrawn)
    labels = labels[due & ~is_stored & ~is_unreadable_still]
    # A label that comes later than it should became known now: what was known on earlier dates does not change.
    late = labels["dt"].isin(index.labels) | (labels["dt"] <= index.as_of)
    return labels.assign(dt=labels["dt"].where(~late, as_of.isoformat())), n_changed


def _is_readable(labels: pd.DataFrame, product: Product) -> pd.Series:
    return cast_target(labels[product.target.name], product.target)[0].notna()


def _first_labels(labels: pd.DataFrame, keys: pd.Series, product: Product) -> pd.Series:
    """Return the first label of each key, as text whatever type a reader chose for it; by the key's text."""
    texts = as_text(cast_target(labels[product.target.name], product.target)[0])
    values = texts.where(texts.notna(), "").set_axis(keys)
    return values[~values.index.duplicated()]
