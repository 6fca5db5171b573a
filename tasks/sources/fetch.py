"""Fetch a product's rows as its source delivers them: files, SQL and Python.

Nothing is cast: a CSV cell stays the text that it is, so that no leading zero or long number is lost. `tasks.validate`
casts the cells and quarantines those that do not fit. A row that cannot be read is a row too: see
`tasks.sources.formats.unreadable`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date

import pandas as pd

from model.features.kinds import kind_class
from model.heads import head_of
from tasks.params import UNREADABLE_COLUMNS, Product, PythonSource, Source
from tasks.runtime.errors import UserError
from tasks.runtime.fingerprints import code_sha256, json_sha256
from tasks.sources.databases.sql import query_pieces
from tasks.sources.declared import Columns
from tasks.sources.event_source import EventSource, place_of, wanted_of
from tasks.sources.files import file_pieces
from tasks.sources.formats.dialect import in_own_terms, names_in_source
from tasks.sources.formats.evidence import Evidence
from tasks.sources.formats.image_files import lacks_files
from tasks.sources.formats.pieces import RawPiece, Wanted, digest_of
from tasks.sources.formats.unreadable import mark_containers
from tasks.sources.label_source import LabelSource, product_of_labels
from tasks.sources.labels import Labels


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of what a source delivers: so many rows as fit into memory at once."""

    name: str
    """Where it lies at the source, such as `orders.parquet#3`: always the same part while the source only grows."""
    digest: str
    """Of its bytes and of how they are read; another one means that it must be read. Empty: not known, always read."""
    rows: pd.DataFrame | None
    """All declared columns under the product's names, and those that describe unreadable rows where there are such.
    None where the piece is known already, or lies outside of the days that were asked for (`days` says which)."""
    n_rows: int | None = None
    """How many rows it has, where that is known."""
    days: tuple[str, str] | None = None
    """The first and last event date of a piece that was not read, as it lies outside of the days asked for."""
    evidence: Mapping[str, int] = field(default_factory=dict)
    """What it adds to the checks of whole columns; to be given back when the piece is known."""


IsKnown = Callable[[str, str], bool]
"""Whether a piece of this name and digest was taken whole before, so that it need not be read."""
EvidenceOf = Callable[[str], Mapping[str, int]]
"""The evidence that came with a known piece of this name."""


def fetch(
    product: Product,
    since: date | None,
    as_of: date,
    is_known: IsKnown = lambda name, digest: False,
    evidence: EvidenceOf = lambda name: {},
) -> Iterator[Piece]:
    """Yield what the source knows on `as_of` in pieces; what is before event date `since` may be left out.

    Raises UserError for what a person must mend, at the end where it concerns a whole column; TransientError where the
    other side did not answer.
    """
    labels, events = label_source(product, since, as_of), event_sources(product, as_of)
    delivery, salt = Delivery(product, labels, events), _salt(product, labels, events)
    wanted = Wanted(
        declared=[*names_in_source(product).values()],
        is_known=lambda number, digest: is_known(number, _salted(digest, salt)),
        time=names_in_source(product)[product.time] if product.has_time else None,
        zone=product.time_zone,
        since=since,
        until=product.scored_day(as_of),
    )
    for raw in _rows_of(product, wanted, since, as_of):
        digest = _salted(raw.digest, salt)
        if raw.rows is None:
            found = {} if raw.days else evidence(raw.number)
            delivery.add_known(found, is_read=raw.days is None)
            yield Piece(name=raw.number, digest=digest, rows=None, n_rows=raw.n_rows, days=raw.days, evidence=found)
        else:
            frame, found = delivery.add(raw.rows)
            rows = delivery.columns.declared(frame)
            if _lacks_files(rows, product):
                digest = ""  # what is not known is read again: they may have come by then
            yield Piece(name=raw.number, digest=digest, rows=rows, n_rows=len(rows), evidence=found)
            del raw, frame, rows  # lest two pieces lie in memory
    delivery.check(with_columns=True)


def fetch_whole(product: Product, since: date | None, as_of: date) -> pd.DataFrame:
    """Return all rows at once, with undeclared columns where a declared one lacks: for a look at a source.

    Raises UserError for what a person must mend, TransientError where the other side did not answer.
    """
    delivery = Delivery(product, label_source(product, since, as_of), event_sources(product, as_of))
    wanted = Wanted(declared=[*names_in_source(product).values()])
    frames = [delivery.add(raw.rows)[0] for raw in _rows_of(product, wanted, since, as_of) if raw.rows is not None]
    delivery.check(with_columns=False)
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def label_source(product: Product, since: date | None, as_of: date) -> LabelSource | None:
    """Return the labels of `target.source`; None where the rows' own source has them."""
    if product.target.source is None:
        return None
    pieces = fetch(product_of_labels(product), since, as_of)
    return LabelSource(product, (piece.rows for piece in pieces if piece.rows is not None))


def event_sources(product: Product, as_of: date) -> tuple[EventSource, ...]:
    """Return the events of each column that another source makes."""
    found = []
    for column in product.joined_columns:
        source, kinds, wanted = wanted_of(product, column)
        pieces = _raw_pieces(source, place_of(product, column), kinds, wanted, (None, as_of, as_of))
        frames = (piece.rows for piece in pieces if piece.rows is not None)
        found.append(EventSource(product, column, as_of, frames))
    return tuple(found)


class Delivery:
    """What the pieces of a source say together."""

    def __init__(
        self, product: Product, label_source: LabelSource | None = None, event_sources: tuple[EventSource, ...] = ()
    ) -> None:
        """Begin with no piece."""
        self._label_source, self._event_sources = label_source, event_sources
        self._product, self._place = product, f"params.yaml: products.{product.name}.source"
        self._labels = Labels(product.target, self._place, product.source.kind)
        self._evidence = Evidence(self._place)
        self.columns = Columns(product, self._place)

    def add(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
        """Return a piece under the product's names, and the counts that it adds to the checks of whole columns."""
        if not isinstance(frame, pd.DataFrame):
            raise UserError(
                f"{self._place} must deliver a pandas DataFrame, got {type(frame).__name__}; return a DataFrame"
            )
        doubled = frame.columns[frame.columns.duplicated()]
        twice = [name for name in doubled.unique() if name in names_in_source(self._product).values()]
        if twice:
            raise UserError(f"{self._place} must deliver every column once, got {twice} more than once; rename them")
        frame = frame.loc[:, ~frame.columns.isin(doubled)].reset_index(drop=True)
        self.columns.add(frame)
        frame, counts = in_own_terms(frame, self._product, self._labels)
        if self._label_source is not None:
            frame = self._label_source.add_to(frame)
        for each in self._event_sources:
            frame = each.add_to(frame)
        if (own_label := head_of(self._product.target.task).own_label) is not None:
            frame = frame.assign(**{self._product.target.name: own_label})
        frame, more = mark_containers(frame, self._product)
        self._evidence.add(counts | more)
        self._labels.count(counts)
        return frame, {name: n for name, n in (counts | more).items() if n}

    def add_known(self, counts: Mapping[str, int], is_read: bool) -> None:
        """Add a piece that is not read, with the counts that came with it when it was."""
        self._evidence.add(counts)
        self._labels.count(counts)
        self.columns.has_known |= is_read

    def check(self, with_columns: bool) -> None:
        """Raise UserError where the pieces lack what is declared, or can be read in two ways."""
        self.columns.check_names()
        self._evidence.check()
        self._labels.check()
        if with_columns:
            self.columns.check()
        if self._label_source is not None and not self.columns.has_known:
            self._label_source.check()
        for each in () if self.columns.has_known else self._event_sources:
            each.check()


def _salt(product: Product, labels: LabelSource | None, events: tuple[EventSource, ...]) -> str:
    """Return what decides what is read: the entry, the code of the readers, labels and events that lie elsewhere."""
    parts = ("source", "columns", "target", "declared_key", "declared_time", "time_zone", "pii", "events", "sources")
    entry = asdict(product)
    beside = (labels.digest if labels else b"") + b"".join(each.digest for each in events)
    content = {"entry": [entry[part] for part in parts], "horizon_days": product.predict.lead_days}
    return json_sha256({**content, "code": code_sha256("tasks/sources")}) + beside.decode()


def _lacks_files(rows: pd.DataFrame, product: Product) -> bool:
    if product.source.images is None:
        return False
    named = [name for name, kind in product.kinds.items() if kind_class(kind).names_files and name in rows]
    return any(lacks_files(rows[name]) for name in named)


def _salted(digest: str, salt: str) -> str:
    return digest and digest_of(salt.encode(), digest.encode())


def _rows_of(product: Product, wanted: Wanted, since: date | None, as_of: date) -> Iterator[RawPiece]:
    place, days = f"params.yaml: products.{product.name}.source", (since, product.scored_day(as_of), as_of)
    return _raw_pieces(product.source, place, _kinds_of_cells(product), wanted, days)


def _raw_pieces(
    source: Source, place: str, kinds: dict[str, str], wanted: Wanted, days: tuple[date | None, date, date]
) -> Iterator[RawPiece]:
    """Yield the pieces of a source; `days` are the first and the last event date that are asked for, and as_of."""
    since, end, as_of = days
    if source.kind == "python":
        yield RawPiece(number="rows#0", digest="", rows=_call(source, place, since, end))
    elif source.kind == "sql":
        yield from query_pieces(source, place, since, as_of, kinds, wanted)
    else:
        yield from file_pieces(source, place, wanted)


def _kinds_of_cells(product: Product) -> dict[str, str]:
    """Return the kinds of the columns that hold single values: also of the target, unless its labels may be lists."""
    head = head_of(product.target.task)
    return product.kinds if head.normalises_labels else {**product.kinds, product.target.name: head.label_kind}


def _call(source: PythonSource, place: str, start: date | None, end: date) -> pd.DataFrame:
    module, _, name = source.callable.partition(":")
    rows = getattr(importlib.import_module(module), name, None)
    if not callable(rows):
        raise UserError(f"{place}.callable must name a function, got {source.callable!r}; define {name} in {module}")
    frame: pd.DataFrame = rows(start, end)
    return frame.drop(columns=list(UNREADABLE_COLUMNS), errors="ignore") if isinstance(frame, pd.DataFrame) else frame
