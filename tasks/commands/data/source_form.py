"""Guess how a source writes names, missing cells, numbers and times, for the entry that `product` proposes.

What fits one reading is guessed; where a time fits two, none is, and a note says so.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from tasks import params
from tasks.params.rules import STAGE_COLUMNS
from tasks.rows.casting import as_text, cast_column
from tasks.sources.formats.dialect import number_form, times_as_declared, without_words
from tasks.sources.formats.evidence import is_text, words_for_missing

FIT = 0.95
"""So large a share of the cells makes a kind, or a format."""
SAMPLE = 50
"""So many cells are read first: most formats fail there."""
MIN_OTHERS = 2
"""So many different values beside a word for missing make it one."""
TIME_FORMATS = tuple(
    f"{day}{clock}"
    for day in (
        "%d.%m.%Y",
        "%d/%m/%Y",
        "%m/%d/%Y",
        "%d-%m-%Y",
        "%m-%d-%Y",
        "%Y/%m/%d",
        "%d.%m.%y",
        "%d %b %Y",
        "%b %d, %Y",
    )
    for clock in ("", " %H:%M", " %H:%M:%S")
)
UNITS = {10: "s", 13: "ms", 16: "us", 19: "ns"}
"""The unit of a time counted since 1970, by its digits in these decades."""
_NAMED_LIKE_A_TIME = re.compile(r"time|date|day|stamp|epoch|created|updated|(^|_)(ts|at|on)$", re.IGNORECASE)
_LIKE_A_DAY = (
    r"[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{2,4}|[0-9]{1,2} [A-Za-z]{3} [0-9]{4}|[A-Za-z]{3} [0-9]{1,2}, [0-9]{4}"
)
_DECIMAL_COMMA = r"[+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)(?:,[0-9]+)?"
_THOUSANDS_COMMA = r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?"


@dataclass(frozen=True, kw_only=True)
class SourceForm:
    """How a source writes what it delivers."""

    names: dict[str, str]
    """The name in the source of each column that is called otherwise in the entry."""
    missing: tuple[str, ...] = ()
    """Words that mean a missing cell."""
    decimal: Literal["", ","] = ""
    """The character before the parts of a number, where it is no dot."""
    thousands: Literal["", ".", ","] = ""
    """The character between groups of three digits."""
    time_format: str = ""
    """The format or unit of times."""
    notes: tuple[str, ...] = ()
    """What a person must decide."""

    def own_name(self, name: str) -> str:
        """Return the name in the entry of a column of the source."""
        return next((own for own, other in self.names.items() if other == name), name)

    def entry(self, used: Iterable[str]) -> dict[str, object]:
        """Return the keys of a source that differ from their defaults, with the names of the used columns."""
        keys: dict[str, object] = {
            "names": {own: self.names[own] for own in used if own in self.names},
            "missing": list(self.missing),
            "decimal": self.decimal,
            "thousands": self.thousands,
            "time_format": self.time_format,
        }
        return {key: value for key, value in keys.items() if value}


def guess_form(frame: pd.DataFrame, target: str) -> SourceForm:
    """Return how the columns of a source are written, of which `target` is to be predicted."""
    texts = {str(name): cells for name in frame if is_text(cells := frame[name])}
    missing = _missing_words(texts, target)
    known = {name: as_text(without_words(cells, missing).dropna()) for name, cells in texts.items()}
    decimal, thousands = _number_marks([cells for cells in known.values() if len(cells)])
    form, notes = _time_format({str(name): known.get(str(name), frame[name].dropna()) for name in frame})
    return SourceForm(
        names=_own_names(map(str, frame)),
        missing=missing,
        decimal=decimal,
        thousands=thousands,
        time_format=form,
        notes=notes,
    )


def read_as(frame: pd.DataFrame, form: SourceForm) -> pd.DataFrame:
    """Return the columns under the entry's names, with cells as the source's reader delivers them by this form."""
    return pd.DataFrame({form.own_name(str(name)): _read_column(frame[name], form) for name in frame})


def _read_column(cells: pd.Series, form: SourceForm) -> pd.Series:
    if form.time_format and not fits(cells, "time") and _is_written_as(cells, form.time_format):
        return times_as_declared(cells, form.time_format, "UTC")
    if not is_text(cells):
        return cells
    cells = without_words(cells, form.missing)
    if form.decimal or form.thousands:
        numbers = cells.map(_number_form(form.decimal, form.thousands), na_action="ignore")
        return numbers if fits(numbers, "number") else cells
    return cells


def fits(cells: pd.Series, kind: str) -> bool:
    """Return whether nearly all cells that are not missing are of a kind, and one is there."""
    known = cells.dropna()
    return bool(len(known) and cast_column(known, kind)[1].mean() <= 1 - FIT)


def _missing_words(texts: dict[str, pd.Series], target: str) -> tuple[str, ...]:
    """Return the words without which a column holds numbers or times, or which stand beside the target's classes."""
    found: dict[str, None] = {}
    for name, cells in texts.items():
        words = tuple(words_for_missing(cells))
        others = without_words(cells, words).dropna()
        is_number = others.astype("str").str.fullmatch(_DECIMAL_COMMA).all() or fits(others, "number")
        is_typed = is_number or fits(others, "time")
        if words and others.nunique() >= MIN_OTHERS and (is_typed or name == target):
            found |= dict.fromkeys(words)
    return tuple(found)


def _number_marks(columns: list[pd.Series]) -> tuple[Literal["", ","], Literal["", ".", ","]]:
    """Return the marks within numbers that some column cannot be read without."""
    for cells in columns:
        has_decimals = cells.str.contains(r",(?![0-9]{3}$)", regex=True) | cells.str.contains(r"\..*,", regex=True)
        if cells.str.fullmatch(_DECIMAL_COMMA).mean() >= FIT and has_decimals.any():
            return ",", "." if any(
                each.str.fullmatch(_DECIMAL_COMMA).all() and _has_dot(each) for each in columns
            ) else ""
    for cells in columns:
        grouped = cells.str.fullmatch(_THOUSANDS_COMMA)
        if grouped.any() and (grouped | cells.str.fullmatch(r"[+-]?[0-9]{1,3}(?:\.[0-9]+)?")).mean() >= FIT:
            return "", ","
    return "", ""


def _has_dot(cells: pd.Series) -> bool:
    return bool(cells.str.contains(".", regex=False).any())


def _number_form(decimal: Literal["", ","], thousands: Literal["", ".", ","]):  # type: ignore[no-untyped-def]
    return number_form(params.CsvSource(kind="csv", url="-", decimal=decimal or None, thousands=thousands))


def _time_format(columns: dict[str, pd.Series]) -> tuple[str, tuple[str, ...]]:
    """Return the format of the first column of times that are written in one, and notes on those that fit two."""
    notes: list[str] = []
    for name, cells in columns.items():
        if not len(cells) or fits(cells, "time"):
            continue
        if _NAMED_LIKE_A_TIME.search(name):
            lengths = as_text(cells).str.removesuffix(".0").str.len().unique()
            unit = UNITS.get(int(lengths[0])) if len(lengths) == 1 else None
            if unit and _is_written_as(cells, unit):
                return unit, tuple(notes)
        if not is_text(cells) or not cells.astype("str").str.match(_LIKE_A_DAY).any():
            continue
        found = [form for form in TIME_FORMATS if _is_written_as(cells, form)]
        if len(found) == 1:
            return found[0], tuple(notes)
        if found:
            notes.append(f"{name} reads as {' and as '.join(found)}: set source.time_format to the right one")
    return "", tuple(notes)


def _is_written_as(cells: pd.Series, form: str) -> bool:
    known = cells.dropna()
    if len(known) > SAMPLE and not _is_written_as(known.head(SAMPLE), form):
        return False
    read = times_as_declared(known, form, "UTC")
    changed = as_text(read) != as_text(known)
    return bool(len(known) and changed.mean() >= FIT and fits(read, "time"))


def _own_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name of letters, digits and _ for each column that has another, each once.

    >>> _own_names(["day", "Umsatz (€)", "2nd item", "dt", "Größe"])
    {'Umsatz': 'Umsatz (€)', 'c_2nd_item': '2nd item', 'dt_': 'dt', 'Grosse': 'Größe'}
    """
    names = list(names)
    taken, found = {name for name in names if _is_declarable(name)}, {}
    for number, name in enumerate(names, start=1):
        if name in taken or not name:
            continue
        plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
        own = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_") or f"column_{number}"
        own = f"c_{own}" if own[0].isdigit() else own
        while own in taken or own in STAGE_COLUMNS:
            own += "_"
        taken.add(own)
        found[own] = name
    return found


def _is_declarable(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in STAGE_COLUMNS
