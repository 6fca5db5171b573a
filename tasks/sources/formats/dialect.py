"""Read a source's cells as it declares them: its own names of columns, its words for missing, its form of numbers
and of times.

This is the one place where a name of the source becomes a name of the product; all that comes after knows the latter.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from model.features.histories import EventForm
from model.features.kinds import KINDS, kind_class
from model.features.kinds.base import CellForm
from model.heads import head_of
from tasks.params import EPOCH_UNITS, ColumnForm, EventList, Product, Source
from tasks.rows.casting import as_text, parse_moment, parse_time
from tasks.sources.formats import evidence
from tasks.sources.formats.evidence import is_text
from tasks.sources.formats.image_files import contents_of

if TYPE_CHECKING:
    from tasks.sources.labels import Labels

_BARE_DAY = r"[0-9]{8}(?:T.+)?"
_MOMENT = r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}[T ].*(?:Z| ?UTC|[+-][0-9]{2}(?::?[0-9]{2})?)"
_COUNT = r"-?[0-9]{1,20}(?:\.[0-9]+)?"
_PER_SECOND = {unit: 1000**power for power, unit in enumerate(EPOCH_UNITS)}
_ANY_DAY = pd.Timestamp("1970-01-01")
_FIRST, _LAST = (int(np.datetime64(day, "us").astype(np.int64)) for day in ("0001-01-02", "9999-12-30"))


def names_in_source(product: Product) -> dict[str, str]:
    """Return the name that each declared column has in the source."""
    target = [product.target.name] if product.target.is_in_rows else []
    latest_by = [product.source.latest_by] if product.source.latest_by else []
    declared = dict.fromkeys([*product.stored_columns, *target, *product.pii, *latest_by])
    return {name: product.source.names.get(name, name) for name in declared if name not in product.joined_columns}


def in_own_terms(frame: pd.DataFrame, product: Product, labels: "Labels") -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a piece under the product's names, with missing cells and numbers as all sources have them.

    Beside it come the counts by which `Evidence` finds cells that fit two readings of which none is declared.
    """
    frame = _renamed(frame, product)
    counts: dict[str, int] = {}
    source, target = product.source, product.target
    label_kind = head_of(target.task).label_kind
    forms = {name: source.form_of(name) for name in names_in_source(product) if name in frame}
    kinds = {name: kind for name, kind in {**product.kinds, target.name: label_kind}.items() if name in forms}
    delivered = frame.get(target.name) if target.is_in_rows else None
    for name, form in forms.items():
        if form.missing:
            frame[name] = without_words(frame[name], form.missing)
    if delivered is not None:
        if forms[target.name].missing is None and _has_classes(target.task):
            counts |= evidence.label_words(frame[target.name], target.name)
        frame, more = labels.in_own_terms(frame, delivered)
        counts |= more
    for name in (name for name, kind in kinds.items() if KINDS[kind].cells == "float64"):
        form = forms[name]
        if form.missing is None and (name != target.name or not head_of(target.task).label_values):
            counts |= evidence.number_words(frame[name], name)
        if name != target.name or not head_of(target.task).label_values:
            counts |= evidence.marks_between_digits(frame[name], name, form.thousands or "", form.decimal or ".")
        if form.decimal == "," or form.thousands:
            frame[name] = frame[name].map(number_form(form), na_action="ignore")
        elif form.decimal is None and source.kind == "csv":
            counts |= evidence.groups_of_digits(frame[name], name)
    times = [product.time, *(name for name, kind in product.kinds.items() if kind == "time")]
    if source.latest_by and source.latest_by not in product.kinds:  # most often the time of the last change
        times.append(source.latest_by)
    for name in dict.fromkeys(times):
        if name in frame:
            frame[name] = times_as_declared(frame[name], forms[name].time_format, product.time_zone)
    for name, kind in kinds.items():
        if kind_class(kind).is_converted:
            frame[name] = _converted(frame, name, kind, product)
    return frame, counts


def _converted(frame: pd.DataFrame, name: str, kind: str, product: Product) -> pd.Series:
    """Return cells in the form in which their kind stores them; what is empty is missing."""
    cells, form = frame[name], _cell_form(product, name)
    # Without a date a row goes to quarantine in any case.
    times = (
        parse_time(frame[product.time]).fillna(_ANY_DAY) if product.time in frame else pd.Series(_ANY_DAY, cells.index)
    )
    contents: Iterable[object] = cells
    if kind_class(kind).names_files and product.source.images:
        contents = contents_of(cells, product.source.images, f"params.yaml: products.{product.name}.source")
    stored = [
        None if _is_empty(cell) else kind_class(kind).stored(content, form, at)
        for cell, content, at in zip(cells, contents, times.to_list(), strict=True)
    ]
    return pd.Series(stored, cells.index, dtype="str", name=cells.name)


def _is_empty(cell: object) -> bool:
    is_missing = pd.api.types.is_scalar(cell) and bool(pd.isna(cell))  # type: ignore[call-overload]
    return is_missing or (isinstance(cell, str) and not cell.strip())


def _cell_form(product: Product, name: str) -> CellForm:
    """Return how the cells of a column are stored."""
    pixels, listed = product.source.form_of(name).pixels, product.events.get(name, EventList())
    assert pixels is not None
    events = EventForm(
        numbers=tuple(field for field, kind in listed.fields.items() if KINDS[kind].cells == "float64"),
        categories=tuple(field for field, kind in listed.fields.items() if KINDS[kind].cells == "str"),
        time=listed.time,
        max_events=listed.max_events,
        days_before=product.events_end_days(listed),
        zone=product.time_zone,
    )
    return CellForm(pixels=pixels, events=events)


def _has_classes(task: str) -> bool:
    """Return whether labels are classes of any name, of which a word for missing could be one."""
    head = head_of(task)
    return KINDS[head.label_kind].cells != "float64" and not head.label_values


def _renamed(frame: pd.DataFrame, product: Product) -> pd.DataFrame:
    names = {name: own for name, own in product.source.names.items() if own in frame}
    covered = [name for name in names if name in frame and name not in names.values()]
    return frame.drop(columns=covered).rename(columns={own: name for name, own in names.items()})


def without_words(cells: pd.Series, words: tuple[str, ...]) -> pd.Series:
    """Return a column in which the words, with or without spaces around them, are missing cells."""
    if not is_text(cells):
        return cells
    plain = {word.strip() for word in words}
    is_word = (
        cells.map(lambda cell: isinstance(cell, str) and cell.strip() in plain)
        if cells.dtype == object
        else cells.str.strip().isin(plain)
    )
    return cells.mask(is_word.astype(bool), None)


def number_form(source: Source | ColumnForm) -> Callable[[object], object]:
    """Return the function that writes a number's text as Python does; what is none of that form becomes JSON text.

    So nothing takes it for another number: with a decimal comma `1.5` is none.
    """
    mark, point = source.thousands or "", source.decimal or "."
    thousands, decimal = re.escape(mark), re.escape(point)
    whole = rf"[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+|[0-9]+" if thousands else "[0-9]+"
    form = re.compile(rf"\s*[+-]?(?:{whole})?(?:{decimal}[0-9]*)?(?:[eE][+-]?[0-9]+)?\s*")

    def written(cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        if form.fullmatch(cell):
            return cell.replace(mark, "").replace(point, ".")
        try:
            float(cell)
        except ValueError:
            return cell
        return json.dumps(cell, ensure_ascii=False)

    return written


def times_as_declared(cells: pd.Series, form: str | None, zone: str) -> pd.Series:
    """Return times as ISO 8601 or as a type of times, those with an offset as the clocks of the zone show them."""
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        return cells if zone == "UTC" else cells.dt.tz_convert(zone).dt.tz_localize(None)
    if form and not pd.api.types.is_datetime64_any_dtype(cells):
        texts = as_text(cells).str.strip()
        read = _counted(texts, form) if form in EPOCH_UNITS else _formatted(texts, form)
        # Eight digits that are none of the declared form would be taken for a date of another.
        other = texts.mask(texts.str.fullmatch(_BARE_DAY, na=False), texts.map(json.dumps, na_action="ignore"))
        cells = _written(read, zone).where(read.notna(), other)
    if zone == "UTC" or not is_text(cells):
        return cells
    texts = as_text(cells)
    is_moment = texts.str.fullmatch(_MOMENT, na=False)
    if not is_moment.any():
        return cells
    read = parse_moment(texts.where(is_moment, None))
    return _written(read, zone).where(read.notna(), texts)


def _formatted(texts: pd.Series, form: str) -> pd.Series:
    is_moment = "%z" in form or re.search("(UTC|GMT|Z)$", form) is not None
    return pd.to_datetime(texts, format=form, errors="coerce", utc=is_moment)


def _counted(texts: pd.Series, unit: str) -> pd.Series:
    """Return the moments that numbers of a unit since 1970 are, cut to the microsecond; NaT for what is none."""

    def microseconds(text: str) -> int | None:
        count = math.floor(Decimal(text) * 10**6 / _PER_SECOND[unit])
        return count if _FIRST <= count <= _LAST else None

    is_count = texts.str.fullmatch(_COUNT, na=False)
    counts = texts.where(is_count, None).map(microseconds, na_action="ignore").astype("Int64")
    found = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[us]")
    known = counts.notna()
    found[known] = counts[known].to_numpy(np.int64).astype("M8[us]")
    return found.dt.tz_localize("UTC")


def _written(times: pd.Series, zone: str) -> pd.Series:
    """Return times as text, moments as the clocks of the zone show them."""
    if isinstance(times.dtype, pd.DatetimeTZDtype):
        times = times.dt.tz_convert(zone).dt.tz_localize(None)
    texts = pd.Series(np.datetime_as_string(times.to_numpy().astype("M8[us]")), index=times.index, dtype="str")
    return texts.str.removesuffix(".000000").where(times.notna(), None)
