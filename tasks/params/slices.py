"""Read what `slices` of a product declares: a column, or a comparison of one with a value. No text is ever run."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

from model.features.kinds import CATEGORY, KINDS, NUMBER, TEXT, TIME

ORDERING = ("<=", ">=", "<", ">")
"""Operators that numbers and times have; == and != texts have too."""
MAX_DECLARATIONS = 20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_RULE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:(==|!=|<=|>=|<|>)\s*(.*\S)\s*)?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class SliceRule:
    """What one entry of `slices` says."""

    column: str
    operator: str = ""
    """Empty where every frequent value of the column is a slice."""
    value: str = ""
    """What the column is compared with, as text."""

    @property
    def number(self) -> float | None:
        """Return the value as a finite number; None where it is none."""
        try:
            number = float(self.value)
        except ValueError:
            return None
        return number if abs(number) < float("inf") else None

    @property
    def day(self) -> date | None:
        """Return the value as a date; None where it is none."""
        try:
            return date.fromisoformat(self.value) if len(self.value) == len("2013-06-30") else None
        except ValueError:
            return None

    @property
    def kind(self) -> str:
        """Return how a column is read that nothing but slices names."""
        if self.operator in ORDERING:
            return TIME if self.number is None and self.day else NUMBER
        return CATEGORY


def slice_rule(text: str) -> SliceRule:
    """Return what an entry says: `column`, or `column operator value`.

    >>> slice_rule("distance_miles > 1500").value
    '1500'

    Raises: ValueError where it is neither.
    """
    found = _RULE.fullmatch(text)
    if not found:
        raise ValueError(
            "must be a column, or a column, one of == != <= >= < >, and a value, "
            f'got {text!r}; use for example "distance_miles > 1500"'
        )
    column, operator, value = found.groups(default="")
    for quote in "\"'":
        if len(value) > 1 and value.startswith(quote) and value.endswith(quote):
            value = value[1:-1]
    return SliceRule(column=column, operator=operator, value=value)


def checked_slices(slices: dict[str, str]) -> dict[str, str]:
    """Return what is declared. Raises ValueError with every entry that cannot be read, one line each."""
    mistakes = []
    for name, text in slices.items():
        if not _NAME.fullmatch(name):
            mistakes.append(f"must have names of letters, digits, _ and -, got {name!r}; rename it")
        try:
            slice_rule(text)
        except ValueError as error:
            mistakes.append(f"{name} {error}")
    if len(slices) > MAX_DECLARATIONS:
        mistakes.append(f"must have at most {MAX_DECLARATIONS} entries, got {len(slices)}; delete some")
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return slices


def columns_of_slices(slices: Mapping[str, str]) -> dict[str, str]:
    """Return the columns that slices name, with the kind that each has where nothing else declares it."""
    found: dict[str, str] = {}
    for rule in map(slice_rule, slices.values()):
        if found.get(rule.column, CATEGORY) == CATEGORY:  # an order says more of a column than its name alone
            found[rule.column] = rule.kind
    return found


def mistakes_of_slices(slices: Mapping[str, str], kinds: Mapping[str, str | None], target: str) -> Iterator[str]:
    """Yield the entries that no column of their kind fits; `kinds` are those of the declared columns."""
    own = columns_of_slices(slices)
    for name, text in slices.items():
        rule = slice_rule(text)
        kind = kinds.get(rule.column, own[rule.column])
        cells = KINDS[kind].cells if kind in KINDS else ""
        if rule.column == target:
            yield f"slices.{name} must not be of the target, got {target}; name a column that is known beforehand"
        elif kind == TEXT or (kind == TIME and not rule.operator):
            remedy = "compare it with a date" if kind == TIME else "name a category"
            got = f"got the {kind} {rule.column}"
            yield f"slices.{name} must be of a column with values that come often, {got}; {remedy}"
        elif cells == "float64" and rule.operator and rule.number is None:
            yield f"slices.{name} must compare the {kind} {rule.column} with a number, got {rule.value!r}; correct it"
        elif cells == "datetime64[s]" and rule.operator and rule.day is None:
            yield (
                f"slices.{name} must compare the {kind} {rule.column} with a date, got {rule.value!r}; "
                "use for example 2013-06-30"
            )
        elif cells == "str" and rule.operator in ORDERING:
            yield f"slices.{name} must compare the {kind} {rule.column} by == or !=, got {rule.operator}; correct it"
