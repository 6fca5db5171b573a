"""Tell what moved the scores of three held-out rows: the one that is scored highest, lowest, and in the middle.

For the report. See `model.scoring.attribution` for how a score is split among parts and columns. A row is named by its
key, as it is in the files of a night; none of its values is kept.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from model.heads import head_of
from tasks.params import Product
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.paths import Paths
from tasks.runtime.records import RECORD, Record


@dataclass(frozen=True, kw_only=True, config=RECORD)
class SingleRow(Record):
    """What moved the score of one row, in logits before calibration; of a number, in deviations of the target."""

    key: str
    """The row's key, as text."""
    place: str
    """highest, middle or lowest, among the scores of all held-out rows."""
    answer: str | None
    """The class whose score is explained; None of a yes or no, or a number."""
    score: float
    """The model's."""
    label: str | None
    """What came true; None where it is not known."""
    parts: Mapping[str, float]
    """By part of the blend, what it adds to a row in which every cell is missing."""
    columns: Mapping[str, float]
    """The Transformer's part by column, by integrated gradients; none where it has no weight."""
    gap: float
    """What the columns leave of the Transformer's part."""


def explain_single_rows(product: Product, paths: Paths, rows: SplitPart, scores: np.ndarray) -> list[SingleRow]:
    """Return what moved the scores of three held-out rows of the trained model below `paths`.

    None without labels, nor where these are texts: what is written or found has no one score to be split.

    Shapes: scores [n] or [n, C] of the rows, or lists [n, k, 2].
    """
    from model.network.store import load_model
    from model.scoring.attribution import attribute

    head = head_of(product.target.task)
    if not head.has_labels or head.writes_texts or head.answers_spans or not len(rows):
        return []
    leading = (scores[..., 1] if head.answers_lists else head.point(scores)).reshape(len(scores), -1).max(axis=1)
    order = np.argsort(leading, kind="stable")
    chosen = {"highest": order[-1], "middle": order[len(order) // 2], "lowest": order[0]}
    network, features = load_model(paths.trained)
    target, found = network.target, []
    assert target is not None
    for place, at in chosen.items():
        row = rows.only(np.arange(len(rows)) == at)
        (each,) = attribute(network, features, row.read_all())
        known = row.columns([*product.key, product.target.name]).iloc[0]
        found.append(
            SingleRow(
                key=", ".join(str(known[name]) for name in product.key),
                place=place,
                answer=target.classes[each.answer] if target.classes and target.n_outputs > 1 else None,
                score=float(leading[at]),
                label=None if pd.isna(known[product.target.name]) else str(known[product.target.name]),
                parts={name: round(value, 6) for name, value in each.parts.items()},
                columns={name: round(value, 6) for name, value in each.columns.items()},
                gap=round(each.gap, 6),
            )
        )
    return found
