"""Read a source's cells as it declares them: its own names of columns, its words for missing, its form of numbers.

This is the one place where a name of the source becomes a name of the product; all that comes after knows the latter.
"""

import json
import re
from collections.abc import Callable

import pandas as pd

from model.heads import head_of
from tasks.params import Product, Source
from tasks.runtime.errors import UserError

MISSING_WORDS = ("NA", "N/A", "NULL", "Null", "null", "nan", "None", "none", "\\N", "?", "-")
"""Words by which programs write that a cell is missing; a label `NaN` is not known in any case: see `has_label`."""
MIN_AMBIGUOUS = 10
"""From so many numbers on that read two ways a column is asked about."""
_NUMBERS = ("number", "context")
_GROUPED = r"\s*[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+\s*"
_UNGROUPED = r"\s*[+-]?[0-9]{1,3}\s*"


def names_in_source(product: Product) -> dict[str, str]:
    """Return the name that each declared column has in the source."""
    declared = dict.fromkeys([*product.input_columns, product.target.name, *product.pii])
    return {name: product.source.names.get(name, name) for name in declared}


def in_own_terms(frame: pd.DataFrame, product: Product, place: str) -> pd.DataFrame:
    """Return a delivery under the product's names, with missing cells and numbers as all sources have them.

    Raises UserError where a name is wrong, or cells fit two readings of which none is declared.
    """
    frame = _renamed(frame, product, place)
    source, target = product.source, product.target
    label_kind = head_of(target.task).label_kind
    kinds = {name: kind for name, kind in {**product.kinds, target.name: label_kind}.items() if name in frame}
    if source.missing:
        for name in kinds:
            frame[name] = frame[name].mask(_is_word(frame[name], source.missing), None)
    elif source.missing is None and label_kind not in _NUMBERS and not head_of(target.task).label_values:
        _ask_about_missing_labels(frame, target.name, place)
    for name in (name for name, kind in kinds.items() if kind in _NUMBERS):
        if source.decimal == "," or source.thousands:
            frame[name] = frame[name].map(_number_form(source), na_action="ignore")
        elif source.decimal is None and source.kind == "csv":
            _ask_about_thousands(frame[name], name, place)
    return frame


def _renamed(frame: pd.DataFrame, product: Product, place: str) -> pd.DataFrame:
    names = product.source.names
    known = names_in_source(product)
    for name, own in names.items():
        if name not in known:
            raise UserError(f"{place}.names must name declared columns, got {name!r}; use one of {', '.join(known)}")
        if own not in frame:
            raise UserError(
                f"{place}.names.{name} must be a column of the source, got {own!r}, and none has this name; correct it"
            )
    covered = [name for name in names if name in frame and name not in names.values()]
    return frame.drop(columns=covered).rename(columns={own: name for name, own in names.items()})


def _is_word(cells: pd.Series, words: tuple[str, ...]) -> pd.Series:
    return cells.isin(words) if cells.dtype in (object, "str") else pd.Series(False, cells.index)


def _ask_about_missing_labels(frame: pd.DataFrame, target: str, place: str) -> None:
    if target not in frame or frame[target].dtype not in (object, "str"):
        return
    counts = frame[target].dropna().map(str).value_counts()
    words = {word: int(counts[word]) for word in MISSING_WORDS if word in counts}
    if words and len(words) < len(counts):
        found = ", ".join(f"{n:,} of {len(frame):,} labels are the word {word!r}" for word, n in words.items())
        raise UserError(
            f"{place}: a word for missing is no class: in {target} {found}; set source.missing: "
            f"{json.dumps(list(words))} for labels not known yet, or source.missing: [] where it is a class"
        )


def _ask_about_thousands(cells: pd.Series, name: str, place: str) -> None:
    """Refuse numbers of which each with a dot may be one of thousands, beside numbers below 1000 without a dot."""
    if cells.dtype not in (object, "str"):
        return
    texts = cells.dropna().astype("str")
    grouped = texts.str.fullmatch(_GROUPED)
    others = texts[~grouped]
    if int(grouped.sum()) >= MIN_AMBIGUOUS and len(others) and others.str.fullmatch(_UNGROUPED).all():
        raise UserError(
            f"{place}: the numbers of {name} fit two readings: {int(grouped.sum()):,} of {len(texts):,} have a dot, "
            'each before three digits; set source.thousands: "." and source.decimal: "," where it parts thousands, or '
            'source.decimal: "." where it does not'
        )


def _number_form(source: Source) -> Callable[[object], object]:
    """Return the function that writes a number's text as Python does; what is none of that form becomes JSON text.

    So nothing takes it for another number: with a decimal comma `1.5` is none.
    """
    thousands, decimal = re.escape(source.thousands), re.escape(source.decimal or ".")
    whole = rf"[0-9]{{1,3}}(?:{thousands}[0-9]{{3}})+|[0-9]+" if thousands else "[0-9]+"
    form = re.compile(rf"\s*[+-]?(?:{whole})?(?:{decimal}[0-9]*)?(?:[eE][+-]?[0-9]+)?\s*")

    def written(cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        if form.fullmatch(cell):
            return cell.replace(source.thousands, "").replace(source.decimal or ".", ".")
        try:
            float(cell)
        except ValueError:
            return cell
        return json.dumps(cell, ensure_ascii=False)

    return written
