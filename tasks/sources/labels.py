"""Read the labels of a delivery as the target declares them, and ask where they fit two readings.

What the labels of all pieces say adds up, also of those that need not be read again: `in_own_terms` reads those of
one, `count` adds what they say, and `check` asks once all have come. Labels are stored as they were delivered:
`tasks.rows.casting` knows which of two values is the positive one.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from model.heads import head_of
from model.heads.multilabel import LABEL_SEPARATOR
from tasks.params import UNREADABLE_COLUMNS, Target
from tasks.rows.casting import has_label, label_word, label_words
from tasks.runtime.errors import UserError
from tasks.sources.formats.evidence import MISSING_WORDS

NO_LABEL = LABEL_SEPARATOR
"""A cell of a multilabel target of which no label is true: the mark between labels, and none beside it."""
MAX_VALUES = 10
"""More different values are counted no further: no two are meant."""
_COUNT, _LABELS, _EMPTY, _VALUE = "label:", "label:known", "label:empty", "label:value="
YES_AND_NO = (
    ("yes", "no"),
    ("y", "n"),
    ("t", "f"),
    ("ja", "nein"),
    ("j", "n"),
    ("oui", "non"),
    ("si", "no"),
    ("sí", "no"),
    ("on", "off"),
    ("1", "2"),
    ("1", "-1"),
)
"""Pairs of values that a message may repeat, since they are of no single row, with the one proposed as positive."""


class Labels:
    """The labels of a delivery, and what they say of how they are to be read."""

    def __init__(self, target: Target, place: str, kind: str) -> None:
        """Note what is declared, and the kind of source that the labels come from."""
        self.target, self.place = target, place
        self.missing_is_empty = kind in ("csv", "excel")
        self.has_lists = kind not in ("csv", "excel", "sql")  # where [] says none, an empty text says not known
        self._counts: Counter[str] = Counter()

    def count(self, counts: Mapping[str, int]) -> None:
        """Add what the labels of a piece say."""
        self._counts.update({key: n for key, n in counts.items() if key.startswith(_COUNT)})

    @property
    def _values(self) -> dict[str, int]:
        return {key.removeprefix(_VALUE): n for key, n in self._counts.items() if key.startswith(_VALUE)}

    def in_own_terms(self, frame: pd.DataFrame, delivered: pd.Series) -> tuple[pd.DataFrame, dict[str, int]]:
        """Return a piece with the labels as declared, and what they say.

        `delivered` are its labels as they were before words for missing were taken out.
        """
        name, head = self.target.name, head_of(self.target.task)
        is_row = pd.Series(True, frame.index)
        if UNREADABLE_COLUMNS[0] in frame:
            is_row = frame[UNREADABLE_COLUMNS[0]].isna()
        labels, counts = frame[name], Counter[str]()
        if head.normalises_labels:
            frame[name], counts[_EMPTY] = self._with_empty(labels, delivered, is_row)
        elif head.label_values:
            counts.update({f"{_VALUE}{word}": n for word, n in self._common_values(labels[is_row]).items()})
        counts[_LABELS] = int((is_row & has_label(frame[name])).sum())
        return frame, {key: n for key, n in counts.items() if n}

    def check(self) -> None:
        """Raise UserError where the labels that came fit two readings, or none."""
        name, n, positive, n_empty = self.target.name, self._counts[_LABELS], self.target.positive, self._counts[_EMPTY]
        if n_empty:
            raise UserError(
                f"{self.place}: {n_empty:,} of {n_empty + n:,} cells of {name} are empty, which may say "
                "that no label is true or that they are not known yet; set target.empty to none or to unknown"
            )
        if positive is None:
            found = self._values.keys() - {word.lower() for word in MISSING_WORDS}
            if len(found) <= 2 and found - head_of(self.target.task).label_values.keys():
                raise UserError(f"{self.place}: {self._which_is_yes(found)}")
        elif not self.target.negative:
            others = self._values.keys() - {label_word(positive)}
            if len(others) > 1:
                raise UserError(
                    f"{self.place}: labels that are not target.positive must all be of one value, and in {name} they "
                    f"are of {len(others)}{' or more' if len(self._values) >= MAX_VALUES else ''}; correct it, or set "
                    "target.negative to the one that means no, and the others go to quarantine"
                )
        if positive and n:
            n_yes = self._values.get(label_word(positive), 0)
            print(f"{self.place}: {n_yes:,} of {n:,} labels of {name} are target.positive", file=sys.stderr, flush=True)

    def _which_is_yes(self, found: set[str]) -> str:
        """Return the question which value means yes, with the values only where they say nothing of a row."""
        pair = next((pair for pair in YES_AND_NO if {*pair} == found), None)
        words = f"are {' and '.join(map(repr, pair))}" if pair else f"are of {len(found)} other values"
        example = f", such as {json.dumps(pair[0])}" if pair else ""
        return (
            f"labels of a binary target must be 0 and 1, or false and true, and the {self._counts[_LABELS]:,} of "
            f"{self.target.name} {words}; set target.positive to the one that means yes{example}"
        )

    def _with_empty(self, labels: pd.Series, delivered: pd.Series, is_row: pd.Series) -> tuple[pd.Series, int]:
        """Return multilabel cells in which empty ones are as declared, and how many a person is asked about.

        Lists beside text become text.
        """
        is_list = labels.map(lambda cell: isinstance(cell, list | np.ndarray)).astype(bool)
        if is_list.any() and (labels.notna() & ~is_list).any():  # they will be stored as text, in which [] says nothing
            labels = labels.where(
                ~is_list, labels[is_list].map(lambda cell: LABEL_SEPARATOR.join(map(str, cell)) or NO_LABEL)
            )
        is_empty = delivered.map(lambda cell: isinstance(cell, str) and not cell.strip(), na_action="ignore")
        is_empty = is_row & is_empty.fillna(self.missing_is_empty).astype(bool)
        if self.target.empty == "none":
            return labels.astype(object).mask(is_empty, NO_LABEL), 0
        return labels, 0 if self.target.empty or self.has_lists else int(is_empty.sum())

    @staticmethod
    def _common_values(labels: pd.Series) -> dict[str, int]:
        """Return how often the most frequent values come."""
        counts = label_words(labels[has_label(labels)]).value_counts().head(MAX_VALUES)
        return {str(word): int(n) for word, n in counts.items()}
