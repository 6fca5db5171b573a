"""Kinds of source that a product's rows may come from, one class each; `tasks.sources` reads them."""

import codecs
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from model.features.kinds import CATEGORY, EVENTS, NUMBER
from model.settings import STRICT
from tasks.params.fields import SQL_PASSWORD, URL_PASSWORD, Day, OneOf, module_exists, without_password

UNREADABLE_COLUMNS = ("unreadable", "unreadable_line", "unreadable_text")
"""Columns that `tasks.sources.formats.unreadable` adds to rows it cannot read: the reason, the line, and its text."""

EPOCH_UNITS = ("s", "ms", "us", "ns")
"""Units in which a time may be counted from 1970-01-01T00:00Z on."""


def _is_encoding(name: str) -> str:
    try:
        is_text = codecs.lookup(name)._is_text_encoding
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise ValueError(f"must be one that Python knows, got {name!r}; use utf-8 or cp1252")
    return name


def _is_delimiter(text: str) -> str:
    if len(text) != 1 or text in '"\r\n\0':
        raise ValueError(f'must be one character and no quote, got {text!r}; use "," or "\\t"')
    return text


def _is_escape(text: str | None) -> str | None:
    if text is not None and (len(text) != 1 or text in '"\r\n\0'):
        raise ValueError(f'must be one character and no quote, got {text!r}; use "\\\\"')
    return text


def _is_time_format(text: str | None) -> str | None:
    """Check that a format brings a day back as it was, so that none is guessed."""
    if text is None or text in EPOCH_UNITS:
        return text
    day = datetime(2013, 11, 30, tzinfo=UTC)
    try:
        names_the_day = "%Z" not in text and datetime.strptime(day.strftime(text), text).date() == day.date()
    except (ValueError, re.error):
        names_the_day = False
    if not names_the_day:
        raise ValueError(
            f"must be one of {', '.join(EPOCH_UNITS)}, or name year, month and day as strptime does (a zone as %z, or "
            f'as UTC at the end), got {text!r}; use for example "%d.%m.%Y"'
        )
    return text


def _is_comment(text: str | None) -> str | None:
    if text is not None and (not text.strip() or set(text) & set('"\r\n\0')):
        raise ValueError(f'must be the characters that such a line begins with, got {text!r}; use "#"')
    return text


def _is_file_date(text: str | None) -> str | None:
    """Check that a pattern names one day, by letters of a fixed width."""
    if text is None:
        return None
    letters = re.findall("%(.)", text)
    is_day = sorted(set(letters) & set("Ymdj")) in (["Y", "d", "m"], ["Y", "j"])
    if not is_day or len(set(letters)) < len(letters) or set(letters) - set("YmdjHMS"):
        raise ValueError(
            f"must name year, month and day of a file's name once each, as %Y, %m and %d, got {text!r}; use for "
            'example "%Y%m%d" for sales_20240301.csv'
        )
    return text


def _is_callable(text: str) -> str:
    module, _, function = text.partition(":")
    if not function or not module_exists(module):
        raise ValueError(f"must name an importable module and a function, got {text!r}; use package.module:function")
    return text


Encoding = Annotated[str, AfterValidator(_is_encoding)]
UrlEnv = Annotated[str | None, Field(examples=["WAREHOUSE_URL"])]


Missing = Annotated[tuple[str, ...] | None, Field(examples=[["NA", "NULL"]])]
Decimal = Literal[".", ","]
Thousands = Literal["", ".", ",", " ", "'", "\u00a0", "\u202f"]
Pixels = Annotated[int, Field(ge=8, le=128, multiple_of=4)]
TimeFormat = Annotated[str | None, Field(examples=["%d.%m.%Y"]), AfterValidator(_is_time_format)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ColumnForm:
    """How one column is written, where that is not how the source's others are."""

    missing: Missing = None
    """Words that mean a missing cell, or a label that is not known yet. Default: those of the source."""
    decimal: Decimal | None = None
    """Between the whole and the parts of a number written as text. Default: that of the source."""
    thousands: Thousands | None = None
    """Between groups of three digits of a number written as text. Default: that of the source."""
    time_format: TimeFormat = None
    """How times are written. Default: that of the source."""
    pixels: Pixels | None = None
    """Pixels of a side to which images are fitted. Default: those of the source."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EventList:
    """What the events of one column are, and where they come from."""

    fields: Annotated[dict[str, Annotated[str, OneOf((CATEGORY, NUMBER))]], Field(examples=[{"amount": "number"}])] = (
        Field(default_factory=dict)
    )
    """What is read of each event beside its time, each field a category or a number; nothing else is stored."""
    time: str = "time"
    """The field with an event's time, as ISO 8601 or a type of times. An event later than its row's date, less
    predict.horizon_days where that is one number, and less target.delay_days where a field is the target itself, is a
    leak: such a row goes to quarantine."""
    max_events: Annotated[int, Field(ge=1, le=512)] = 64
    """Events that are kept of a row, the newest."""
    source: Annotated[str | None, Field(examples=["purchases"])] = None
    """The name in `sources` of a source whose rows are the events: each row gets those that were known on its date.
    `from` of a column with `by` means the same. Default: the rows' own source has a list in the column."""
    by: Annotated[str | None, Field(examples=["customer_id"])] = None
    """The column by which events find their rows: a column of the rows, which the events' source has too."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnySource:
    """What all kinds of source have in common."""

    kind: str
    """The kind of source."""
    ends: Annotated[Day | None, Field(examples=["2013-12-31"])] = None
    """The last day of data that come to no more, written as "YYYY-MM-DD": a run of a later date is refused, in place of
    a night without rows. Default: they go on."""
    late_days: Annotated[int, Field(ge=0)] = 7
    """So many days after a row should have been known it is still taken when it comes late, changes or is withdrawn, as
    known from then on; what is older is told once and left. Without a `time` it is taken at any time."""
    latest_by: Annotated[str | None, Field(examples=["updated_at"])] = None
    """The column that says which of several versions of a key that are delivered for one date stands: the one with the
    largest cell, a number or a time as `time_format` says. It need not be declared. Default: the first stands, and the
    others go to quarantine."""
    complete: bool = False
    """Whether a delivery has every row of each date of which it has any: a stored row that it lacks is withdrawn then.
    Default: it stays, and is told once."""
    names: dict[str, str] = Field(default_factory=dict)
    """The source's own name of a column, key, time or target whose name differs here, such as
    {revenue: "Umsatz (€)"}. `columns: {revenue: {kind: number, from: "Umsatz (€)"}}` means the same."""
    missing: Missing = None
    """Words that mean a missing cell, or a label that is not known yet, such as [NA, NULL, "\\\\N", "?"]. Default: the
    empty cell alone; where labels hold such a word the run stops and asks, and [] says that it is a class."""
    decimal: Decimal | None = None
    """Between the whole and the parts of a number written as text. Default: a dot; where a column of a CSV could as
    well mean 1965 by 1.965, the run stops and asks, and "." says that it does not."""
    thousands: Thousands = ""
    """Between groups of three digits of a number written as text. Default: nothing."""
    time_format: TimeFormat = None
    """How the columns of times are written, in the letters of Python's strptime, such as "%d.%m.%Y %H:%M"; or s, ms, us
    or ns for a number of those since 1970. Dates as 2024-03-01 are read beside it. Default: ISO 8601 alone."""
    pixels: Pixels = 32
    """Pixels of a side to which images are fitted when they come, once: training and nights read the same ones."""
    images: Annotated[str | None, Field(examples=["s3://acme/photos/"]), without_password(URL_PASSWORD)] = None
    """The folder, s3:// or http(s):// address below which the images lie that cells name by a path, or by an address
    that begins with it; nothing else is read. A row whose file is not there yet is in quarantine until it is. Default:
    cells hold the images themselves."""
    forms: dict[str, ColumnForm] = Field(default_factory=dict)
    """Columns, by their names here, that are written otherwise than the others: missing, decimal, thousands,
    time_format and pixels of each. `columns: {revenue: {kind: number, decimal: ","}}` means the same, and so do these
    keys in `target`."""

    def form_of(self, column: str) -> ColumnForm:
        """Return how a column is written, with the source's form where it has none of its own."""
        own = self.forms.get(column, ColumnForm())
        return ColumnForm(
            missing=self.missing if own.missing is None else own.missing,
            decimal=self.decimal if own.decimal is None else own.decimal,
            thousands=self.thousands if own.thousands is None else own.thousands,
            time_format=self.time_format if own.time_format is None else own.time_format,
            pixels=self.pixels if own.pixels is None else own.pixels,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnyFileSource(AnySource):
    """What all files have in common."""

    url: Annotated[str | None, Field(examples=["data.csv"]), without_password(URL_PASSWORD)] = None
    """A path, an s3:// or an http(s):// address; of a file, also compressed (gz, bz2, xz, zst, zip), or, not over http,
    of a folder (with a slash at its end on s3) or a pattern with *. Its files are read in the order of their names;
    folders such as dt=2024-03-01 are a column dt."""
    url_env: UrlEnv = None
    """The environment variable that holds the URL, for one that holds a secret."""
    file_date: Annotated[str | None, Field(examples=["%Y%m%d"]), AfterValidator(_is_file_date)] = None
    """How each file's name holds a date, in the letters %Y, %m, %d or %j, and %H, %M, %S, such as "%Y%m%d" for
    sales_20240301.csv, or, with a slash, its path, such as "year=%Y/month=%m/day=%d": it is a column `file_date`, which
    may be the `time`. A file without one stops the run."""

    def __post_init__(self) -> None:
        check_one_url(self.kind, self.url, self.url_env)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CsvSource(AnyFileSource):
    """A CSV file with a header line."""

    kind: Literal["csv"]
    """csv: text with a header line, a character between cells, and quotes where a cell holds that character."""
    delimiter: Annotated[str, AfterValidator(_is_delimiter)] = ","
    """The character between cells."""
    encoding: Encoding = "utf-8"
    """How text is written as bytes, by a name that Python knows."""
    escape: Annotated[str | None, Field(examples=["\\"]), AfterValidator(_is_escape)] = None
    """The character before a quote that is part of a cell in quotes, such as Spark's backslash. Default: such a quote
    is written twice."""
    skip_lines: Annotated[int, Field(ge=0)] = 0
    """Lines before the header."""
    skip_space: bool = False
    """Whether spaces after a delimiter are no part of the cell or name that follows."""
    comment: Annotated[str | None, Field(examples=["#"]), AfterValidator(_is_comment)] = None
    """What a line begins with that is no row, such as "#". Default: every line is one."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class JsonlSource(AnyFileSource):
    """A file of JSON Lines."""

    kind: Literal["jsonl"]
    """jsonl: one JSON object per line."""
    encoding: Encoding = "utf-8"
    """How text is written as bytes, by a name that Python knows."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ParquetSource(AnyFileSource):
    """A Parquet file."""

    kind: Literal["parquet"]
    """parquet: a file of Apache Parquet."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExcelSource(AnyFileSource):
    """A workbook of Excel, or of LibreOffice."""

    kind: Literal["excel"]
    """excel: a workbook (xlsx, xlsm, xlsb, xls, ods) with a header line, whose cells keep their types."""
    sheet: Annotated[str | int | None, Field(examples=["Orders"])] = None
    """The sheet's name, or its number from 0 on. Default: the only one; of several, one must be named."""
    skip_lines: Annotated[int, Field(ge=0)] = 0
    """Lines before the header."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SqlSource(AnySource):
    """A query to a database that SQLAlchemy reaches."""

    kind: Literal["sql"]
    """sql: a database that SQLAlchemy reaches."""
    url: Annotated[str | None, Field(examples=["sqlite:///rows.db"]), without_password(SQL_PASSWORD)] = None
    """A SQLAlchemy URL without a password. Its driver is yours to install where the stages run: psycopg and psycopg2 of
    Postgres and PyMySQL of MariaDB are tested, type by type; a message names the package of one that is missing."""
    url_env: UrlEnv = None
    """The environment variable that holds the URL, for one that holds a secret."""
    query: Annotated[str, Field(examples=["SELECT * FROM parcels"])]
    """One SELECT; `:as_of` in it is bound to the run's date, and `:since` to the first event date that it looks at, as
    in `WHERE day >= :since`: without it every night reads all rows. Both are text such as 2013-06-30."""

    def __post_init__(self) -> None:
        check_one_url(self.kind, self.url, self.url_env)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PythonSource(AnySource):
    """A function of Python."""

    kind: Literal["python"]
    """python: a function of an installed package or of this repository."""
    callable: Annotated[str, Field(examples=["tasks.sources.flights:rows"]), AfterValidator(_is_callable)]
    """`package.module:function`, called with (start, end) dates, returning a DataFrame."""


FileSource = CsvSource | ParquetSource | JsonlSource | ExcelSource
Source = Annotated[FileSource | SqlSource | PythonSource, Field(discriminator="kind")]
"""Where a product's rows come from; `tasks.ingest` decides what is fetched when."""


def check_one_url(kind: str, url: str | None, url_env: str | None) -> None:
    """Check that an address is given either as it is or by its variable. Raises ValueError."""
    if (url is None) == (url_env is None):
        raise ValueError(f"url must be given for kind {kind}, or url_env in its place; add one of the two")


def mistakes_of_events(
    events: Mapping[str, EventList], columns: Mapping[str, str | None], sources: Collection[str], named: Sequence[str]
) -> Iterator[str]:
    """Yield what is wrong with lists of events, one line each; `named` are the columns of a row."""
    for name, each in events.items():
        place = f"events.{name}"
        if columns.get(name, EVENTS) != EVENTS or name not in columns:
            yield f"{place} must be a column of kind {EVENTS}, got {columns.get(name)}; declare it so under columns"
        if each.time in each.fields:
            yield f"{place}.fields must not name the time, got {each.time!r}; delete it there"
        if (each.source is None) != (each.by is None):
            lacks, has = ("by", "source") if each.by is None else ("source", "by")
            yield f"{place}.{lacks} must be given with {has}, got none; add it, or delete {has}"
        if each.source is not None and each.source not in sources:
            use = f"use one of {', '.join(sources)}" if sources else "declare it under sources"
            yield f"{place}.source must name one of sources, got {each.source!r}; {use}"
        if each.by is not None and (each.by not in named or each.by == name):
            yield f"{place}.by must be a column of the rows, got {each.by!r}; use one of {', '.join(named)}"
    used = {each.source for each in events.values()}
    for name in sources:
        if name not in used:
            yield f"sources.{name} must be read by a column of kind {EVENTS}, and is not; delete it"
