"""Collect what cells say of a whole column, piece by piece, and ask a person once all have come.

Counts of pieces that need not be read add up with those of the others, so that a night asks what a first load asks.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tasks.runtime.errors import UserError

MISSING_WORDS = (
    *("NA", "N/A", "NULL", "Null", "null", "nan", "None", "none", "\\N", "?", "-"),
    *("n/a", "#N/A", "#NA", "<NA>", "NaT", "NIL", "nil", ".", "--"),
)
"""Words by which programs write that a cell is missing; a label `NaN` is not known in any case: see `has_label`."""
MIN_AMBIGUOUS = 10
"""From so many numbers on that read two ways a column is asked about."""
_CONTAINERS = (list, tuple, set, dict, np.ndarray, bytes, bytearray, memoryview)
_GROUPED = r"\s*[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+\s*"
_UNGROUPED = r"\s*[+-]?[0-9]{1,3}\s*"
_MARKS = (",", ".", "'", " ", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}")
"""What a number may have between its digits; new ones go to the end, since counts by place are kept."""


class Evidence:
    """Counts about the columns of a delivery."""

    def __init__(self, place: str) -> None:
        """Begin with none; `place` is where the source is declared."""
        self._place = place
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of a piece."""
        self._counts.update(counts)

    def check(self) -> None:
        """Raise UserError where cells fit two readings of which none is declared; print what goes to quarantine."""
        for name in dict.fromkeys(key.partition(" ")[2] for key in self._counts):
            self._tell_missing_numbers(name)
            self._ask_about_missing_labels(name)
            self._ask_about_thousands(name)
            self._ask_about_marks(name)
        nested = [key.partition(" ")[2] for key, n in self._counts.items() if n and key.startswith("nested ")]
        nested = [name for name in nested if not self._counts[f"values {name}"]]
        if nested:
            raise UserError(
                f"{self._place}: every column must hold single values, and all cells of {', '.join(nested)} are lists, "
                "objects or bytes; declare a column of text, numbers or times, or take one out at the source"
            )

    def _found_words(self, name: str) -> dict[str, int]:
        counts = {word: self._counts[f"word{place} {name}"] for place, word in enumerate(MISSING_WORDS)}
        return {word: n for word, n in counts.items() if n}

    def _tell_missing_numbers(self, name: str) -> None:
        """Print how rows are kept whose number is a word for missing: `validate` will find that it is no number."""
        n_cells, words = self._counts[f"numbers {name}"], self._found_words(name)
        if n_cells and words:
            found = ", ".join(f"{n:,} of {n_cells:,} are the word {word!r}" for word, n in words.items())
            print(
                f"{self._place}: every cell of {name} must be a number, and {found}: they go to quarantine; set "
                f"source.missing: {json.dumps(list(words))} where they are missing cells or labels",
                file=sys.stderr,
                flush=True,
            )

    def _ask_about_missing_labels(self, name: str) -> None:
        n_labels, words = self._counts[f"labels {name}"], self._found_words(name)
        if n_labels and words and self._counts[f"classes {name}"]:
            found = ", ".join(f"{n:,} of {n_labels:,} labels are the word {word!r}" for word, n in words.items())
            raise UserError(
                f"{self._place}: a word for missing is no class: in {name} {found}; set source.missing: "
                f"{json.dumps(list(words))} for labels not known yet, or source.missing: [] where it is a class"
            )

    def _ask_about_thousands(self, name: str) -> None:
        """Refuse numbers of which each with a dot may be one of thousands, and each without is below 1000."""
        n_dots, n_plain = self._counts[f"dots {name}"], self._counts[f"plain {name}"]
        if n_dots >= MIN_AMBIGUOUS and not self._counts[f"decided {name}"]:
            raise UserError(
                f"{self._place}: the numbers of {name} fit two readings: {n_dots:,} of {n_dots + n_plain:,} have a "
                'dot, each before three digits; set source.thousands: "." and source.decimal: "," where it parts '
                'thousands, or source.decimal: "." where it does not'
            )

    def _ask_about_marks(self, name: str) -> None:
        """Refuse numbers that would all be lost to quarantine, large ones alone perhaps, for a mark between digits."""
        for place, mark in enumerate(_MARKS):
            n_marked, shown = self._counts[f"mark{place} {name}"], json.dumps(mark)
            if n_marked >= MIN_AMBIGUOUS:
                other = f", or source.decimal: {shown} where the parts of a number follow it" if mark == "," else ""
                raise UserError(
                    f"{self._place}: a number must be digits with what source.thousands and source.decimal declare, "
                    f"and {n_marked:,} of {self._counts[f'texts {name}']:,} cells of {name} have {shown} between their "
                    f"digits; set source.thousands: {shown} where it parts thousands{other}"
                )


def number_words(cells: pd.Series, name: str) -> dict[str, int]:
    """Count the words for missing among cells that must be numbers."""
    return {f"numbers {name}": len(cells), **_words(cells, name)}


def label_words(cells: pd.Series, name: str) -> dict[str, int]:
    """Count the words for missing among labels that may be of any name."""
    words = _words(cells, name)
    n_classes = int(cells.notna().sum()) - sum(words.values())
    return {f"labels {name}": len(cells), f"classes {name}": n_classes, **words}


def groups_of_digits(cells: pd.Series, name: str) -> dict[str, int]:
    """Count numbers as text in which each dot may part thousands."""
    if not is_text(cells):
        return {}
    texts = _texts(cells)
    grouped = texts.str.fullmatch(_GROUPED)
    others = texts[~grouped]
    n_plain = int(others.str.fullmatch(_UNGROUPED).sum())
    return {
        f"dots {name}": int(grouped.sum()),
        f"plain {name}": n_plain,
        f"decided {name}": len(others) - n_plain,
    }


def marks_between_digits(cells: pd.Series, name: str, thousands: str, decimal: str) -> dict[str, int]:
    """Count numbers as text with a mark between their digits that is neither of the two declared ones.

    >>> marks_between_digits(pd.Series(["1,200.50", "980", "12,5"]), "price", "", ".")
    {'texts price': 3, 'mark0 price': 2}
    """
    if not is_text(cells):
        return {}
    marks = [mark for mark in _MARKS if mark not in (thousands, decimal)]
    texts = _texts(cells).str.strip()
    marked = texts[texts.str.contains(f"[0-9][{''.join(marks)}][0-9]")]
    counts = {f"texts {name}": len(texts)}
    for mark in marks if len(marked) else ():
        one, point = re.escape(mark), re.escape(decimal)
        grouped = rf"[+-]?[0-9]{{1,3}}(?:{one}[0-9]{{3}})+(?:{point}[0-9]*)?"
        n = int(marked.str.fullmatch(rf"{grouped}|[+-]?[0-9]+,[0-9]+" if mark == "," else grouped).sum())
        counts |= {f"mark{_MARKS.index(mark)} {name}": n} if n else {}
    return counts


_PLAIN = ("string", "integer", "floating", "boolean", "decimal", "date", "datetime", "time", "timedelta", "empty")
"""What pandas calls columns without a list, an object or bytes."""


def containers(cells: pd.Series, name: str) -> dict[str, int]:
    """Count lists, objects and bytes."""
    if cells.dtype != object:
        return {f"values {name}": int(cells.notna().sum())}
    # Of a column of one type pandas knows without a call for each cell that none is a list, an object or bytes.
    is_plain = pd.api.types.infer_dtype(cells, skipna=True) in _PLAIN
    n_nested = 0 if is_plain else int(cells.map(is_container).sum())
    return {f"nested {name}": n_nested, f"values {name}": int(cells.notna().sum()) - n_nested}


def is_container(cell: object) -> bool:
    """Return whether a cell is no single value."""
    return isinstance(cell, _CONTAINERS)


def is_text(cells: pd.Series) -> bool:
    """Return whether a column may hold text."""
    return cells.dtype == object or cells.dtype == "str"


def _texts(cells: pd.Series) -> pd.Series:
    """Return the cells that are text; those of another type, such as bytes, are none."""
    if cells.dtype == object:
        cells = cells[[isinstance(cell, str) for cell in cells]]
    return cells.dropna().astype("str")


def words_for_missing(cells: pd.Series) -> dict[str, int]:
    """Return how often a column holds each word by which programs write that a cell is missing."""
    if not is_text(cells):
        return {}
    counts = cells[cells.isin(MISSING_WORDS)].value_counts()
    return {word: int(counts[word]) for word in MISSING_WORDS if word in counts}


def _words(cells: pd.Series, name: str) -> dict[str, int]:
    return {f"word{MISSING_WORDS.index(word)} {name}": n for word, n in words_for_missing(cells).items()}
