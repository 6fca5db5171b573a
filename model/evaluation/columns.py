"""Look for columns that a model should not read as they are: copies, row numbers, and what gives the answer away.

Looks at a sample of the training rows, each column by itself; a finding is a hint and never an error, and holds no
value of a row.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model.features.fitting import Table
from model.features.kinds import CATEGORY, NUMBER, TEXT, columns_of, kind_class
from model.heads.base import Head

MIN_ROWS = 100
"""Of fewer rows nothing is said."""
NEARLY_ALL = 0.95
"""Share of different values from which on a category names rows."""
NEARLY_PERFECT = 0.98
"""Skill of a column by itself that no honest column has: 0 is a guess, 1 is no mistake."""
STRONG, FAR_ABOVE = 0.8, 0.25
"""Skill that is suspicious where what it leaves open is this share of what the next best column leaves open."""
MAX_CATEGORIES = 250
MAX_LEAVES = 64
MAX_LABELS = 10
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A hint about one column."""

    column: str
    hint: str
    """What was seen and what to do, in a line."""


def look(kinds: dict[str, str], table: Table, y: np.ndarray, head: Head, n_rows: int) -> list[Finding]:
    """Return what is to be said of the columns.

    `table` is a sample of `n_rows` training rows in their order, by date and key.
    Shapes: y [n] or [n, C], as of `Head.label_array`.
    """
    if len(y) < MIN_ROWS:
        return []
    named = list(_row_names(kinds, table, n_rows))
    ids = {each.column for each in named}
    inputs = {name: kind for name, kind in kinds.items() if name not in ids}
    return [*_copies(kinds, table), *named, *(_leaks(inputs, table, y, head) if head.has_labels else ())]


def _copies(kinds: dict[str, str], table: Table) -> Iterator[Finding]:
    """Yield columns that say the same as one before: the same cells, or numbers in another unit."""
    first: dict[bytes, str] = {}
    for name, kind in kinds.items():
        column = _standardised(table[name]) if kind == NUMBER else table[name]
        if column is None or len(set(column.tolist())) < 2:
            continue
        digest = hashlib.sha256(kind_class(kind).reads_as.encode() + repr(column.tolist()).encode()).digest()
        other = first.setdefault(digest, name)
        if other != name:
            hint = f"columns.{name} says the same as columns.{other} in every row looked at; delete one of the two"
            yield Finding(column=name, hint=hint)


def _standardised(column: np.ndarray) -> np.ndarray | None:
    """Return numbers such that those of another unit or sign are equal; None where all are alike."""
    known = column[np.isfinite(column)]
    if len(known) < MIN_ROWS or known.std() == 0:
        return None
    standard = (column - known.mean()) / known.std()
    clear = standard[np.isfinite(standard) & (np.abs(standard) > 1e-3)]
    if not len(clear):  # numbers beyond what their spread can be told in
        return None
    return np.round(standard * np.sign(clear[0]), DIGITS) + 0.0


def _row_names(kinds: dict[str, str], table: Table, n_rows: int) -> Iterator[Finding]:
    """Yield columns that name or number rows."""
    for name, kind in kinds.items():
        column, n = table[name], len(table[name])
        if kind == CATEGORY:
            known = [cell for cell in column if cell is not None]
            share = NEARLY_ALL if n == n_rows else 1.0
            if len(known) >= MIN_ROWS and len(set(known)) >= share * len(known):
                yield Finding(
                    column=name,
                    hint=f"columns.{name} has {len(set(known)):,} different values in {len(known):,} rows: it names "
                    "rows, of which none comes again, and tells nothing of new ones; delete it from columns, or make "
                    "it text if its words say something",
                )
        elif kind == NUMBER and np.isfinite(column).all() and len(np.unique(column)) == n:
            is_dense = bool((column == np.round(column)).all()) and np.ptp(column) <= 3 * n_rows
            if is_dense or (np.diff(column) > 0).all():
                yield Finding(
                    column=name,
                    hint=f"columns.{name} numbers the rows or only counts up: each of {n:,} rows has a value of its "
                    "own, and new rows will lie beyond all of them; delete it from columns",
                )


def _leaks(kinds: dict[str, str], table: Table, y: np.ndarray, head: Head) -> Iterator[Finding]:
    """Yield columns that alone answer nearly perfectly, or far better than any other."""
    if head.writes_texts:
        yield from _labels_inside(kinds, table, y)
        return
    if head.answers_spans:  # a label stands in a column by what the task is
        return
    skills = {name: _skill(kind, table[name], y, head) for name, kind in kinds.items()}
    for name, skill in skills.items():
        next_best = max((other for each, other in skills.items() if each != name), default=1.0)
        # Of numbers one honest cause may well say nearly all, as a distance does of a journey's minutes.
        is_far_above = head.has_classes and skill >= STRONG and 1 - skill <= FAR_ABOVE * (1 - next_best)
        if skill >= NEARLY_PERFECT or is_far_above:
            yield Finding(
                column=name,
                hint=f"columns.{name} alone answers {100 * skill:.0f} % of what can be known, on rows that were not "
                "fitted: is it known when a row is scored, or written with the label? In that case delete it from "
                "columns",
            )


def _labels_inside(kinds: dict[str, str], table: Table, y: np.ndarray) -> Iterator[Finding]:
    """Yield columns of texts in which the labels stand as they are."""
    for name in columns_of(kinds, TEXT):
        known = [(label, cell) for label, cell in zip(y, table[name], strict=True) if label and cell]
        share = float(np.mean([label in cell for label, cell in known])) if known else 0.0
        if share >= STRONG:
            yield Finding(
                column=name,
                hint=f"columns.{name} holds the label as it is in {100 * share:.0f} % of the rows: is it there when a "
                "text is to be written? In that case deliver the column without it",
            )


def _skill(kind: str, column: np.ndarray, y: np.ndarray, head: Head) -> float:
    """Return what a small tree of one column makes of rows that it was not fitted to, from 0 to 1."""
    reads_as = kind_class(kind).reads_as
    if reads_as == "words":
        return 0.0
    inputs = _ordinals(column)[:, None] if reads_as == "labels" else kind_class(kind).plain_numbers(column)
    inputs = inputs[:, ~np.isnan(inputs).all(axis=0)]
    if not inputs.shape[1]:
        return 0.0
    fitted = np.random.default_rng(0).permutation(len(y)) % 2 == 0
    labels = y.T[:MAX_LABELS] if y.ndim > 1 else [y]
    return max(_tree_skill(inputs, each, fitted, has_classes=head.has_classes) for each in labels)


def _tree_skill(inputs: np.ndarray, y: np.ndarray, fitted: np.ndarray, *, has_classes: bool) -> float:
    from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    least = max(5, len(y) // 200)
    if not has_classes:
        if np.ptp(y[fitted]) == 0 or np.ptp(y[~fitted]) == 0:
            return 0.0
        tree = DecisionTreeRegressor(max_leaf_nodes=MAX_LEAVES, min_samples_leaf=least, random_state=0).fit(
            inputs[fitted], y[fitted]
        )
        skill = r2_score(y[~fitted], tree.predict(inputs[~fitted]))
        known = np.isfinite(inputs[:, 0])
        if known.sum() >= MIN_ROWS and np.ptp(inputs[known, 0]) > 0:  # the answer in another unit: leaves are coarse
            skill = max(skill, known.mean() * np.corrcoef(inputs[known, 0], y[known])[0, 1] ** 2)
        return float(np.clip(skill, 0, 1))
    counts = [np.unique(y[part], return_counts=True) for part in (fitted, ~fitted)]
    if any(len(known) < 2 or found.min() < 5 for known, found in counts):
        return 0.0  # of a class with so few rows nothing is shown
    tree = DecisionTreeClassifier(max_leaf_nodes=MAX_LEAVES, min_samples_leaf=least, random_state=0).fit(
        inputs[fitted], y[fitted]
    )
    if len(tree.classes_) == 2:
        skill = 2 * roc_auc_score(y[~fitted], tree.predict_proba(inputs[~fitted])[:, 1]) - 1
    else:
        skill = balanced_accuracy_score(y[~fitted], tree.predict(inputs[~fitted]), adjusted=True)
    return float(np.clip(skill, 0, 1))


def _ordinals(column: np.ndarray) -> np.ndarray:
    """Return the number of each value, the most frequent first. Shapes: [n] -> float64 [n]."""
    _, numbers, counts = np.unique([cell or "" for cell in column], return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return rank[numbers].clip(max=MAX_CATEGORIES).astype(float)
