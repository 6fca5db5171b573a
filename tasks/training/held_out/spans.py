"""Measure answers that stand in texts of held-out rows, by the baseline: see `model.evaluation.answer_candidates`."""

from pathlib import Path

import numpy as np

from model.features.kinds import TEXT, columns_of
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.model_inputs import SplitPart

MAX_FITTED_ROWS = 5_000
"""Training rows that the baseline is fitted to, beside the validation rows: the candidates of each lie in memory."""


def span_baseline_scores(product: Product, splits: Path, rows: SplitPart) -> np.ndarray:
    """Return what `model.heads.span.MEASURED` names, of the baseline. Shapes: float32 [n, 5]."""
    from model.evaluation.answer_candidates import AnswerCandidates
    from model.heads.span import measured

    parts = [
        model_inputs.split_part(splits, name, product).sample(MAX_FITTED_ROWS).with_known_labels(())
        for name in ("train", "val")
    ]
    y = [label for _, labels in parts for label in labels]
    print(f"fitting the baseline on {len(y):,} rows", flush=True)
    (texts, others), (more_texts, more_others) = (_texts(product, part) for part, _ in parts)
    baseline = AnswerCandidates.fit(texts + more_texts, others + more_others, y, seed=0)
    found = baseline.answers(*_texts(product, rows))
    return measured(list(model_inputs.targets(rows.labels, product, ())), found)


def _texts(product: Product, rows: SplitPart) -> tuple[list[str | None], list[str]]:
    """Return the text of each row in which its answer lies, and its other texts joined."""
    table, answer_in = rows.read_all(), product.target.text
    others = [table[name] for name in columns_of(product.columns, TEXT) if name != answer_in]
    joined = [" ".join(cell for cell in cells if cell) for cells in zip(*others, strict=True)] if others else []
    return list(table[answer_in]), joined or [""] * len(rows)
