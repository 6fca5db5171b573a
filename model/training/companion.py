"""Fit the companion, boosted trees and a linear model of the columns, and blend it with the rest of the network.

Both learn from the training rows, their strength and rounds chosen on parts of them, or on later days where the
validation rows are such. Where there is text, they read what the linear model of subwords says of a row: of a training
row what it says when fitted without it. The blend is chosen on validation rows; then all are fitted to these as well.

Shape legend: n rows, k inputs, o outputs, p parts of the blend.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features.encoded import Encoded
from model.features.fitting import chosen_rows
from model.features.kinds import CATEGORY, NUMBER, TIME
from model.heads.base import Head
from model.network.blend import LINE, TEXT, TREES, Shape
from model.network.companion import Columns, Companion
from model.network.network import Network
from model.target import Target
from model.training.boosting import LOGIT_OF_NONE, Boosted, as_arrays, choose_rounds, fit_trees
from model.training.loss import Loss

MAX_ROWS = 200_000
"""Rows that it is fitted to; of more it takes a sample."""
FEW_ROWS = 20_000
"""Up to so many, strength and rounds are chosen by cross-validation."""
N_FOLDS = 5
MAX_ENCODED_OUTPUTS = 20
"""A category is a number for each output: how often its rows have it. Of more outputs it is its place by frequency."""
STRENGTHS = (0.03, 0.3, 3.0, 30.0)
"""Ridge penalties of the line on standardised numbers: of a logistic regression the inverse of scikit-learn's C."""
CHUNK_ROWS = 8192
COLUMNS = ("categories", "numbers", "times")
"""Inputs of a batch that hold the columns it reads."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows to fit to, as arrays of single precision, with their labels."""

    batch: dict[str, Tensor]
    """The inputs of the columns, as of a batch."""
    text: Tensor | None
    """float32 [n, o]: what the linear model of subwords says."""
    labels: Tensor
    """As of `Head.loss_labels`."""
    weights: np.ndarray | None = None
    """float64 [n]: what each weighs."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: np.ndarray) -> "Rows":
        at = torch.from_numpy(chosen)
        return Rows(
            batch={name: array[at] for name, array in self.batch.items()},
            text=None if self.text is None else self.text[at],
            labels=self.labels[at],
            weights=None if self.weights is None else self.weights[chosen],
        )


def can_have_companion(network: Network) -> bool:
    """Return whether a network has columns that a companion reads, and labels that it can be fitted to."""
    assert network.target is not None
    return network.target.head.has_companion and any(network.sizes.of(kind) for kind in (CATEGORY, NUMBER, TIME))


def rows_of(parts: Sequence[Encoded], text: Tensor | None, labels: Tensor, weights: np.ndarray | None) -> Rows:
    """Return the rows of encoded parts, or of more than MAX_ROWS a sample. Shapes: text [n, o]; labels [n, ...]."""
    chosen = chosen_rows(len(labels), MAX_ROWS)
    starts = np.cumsum([0, *map(len, parts)])
    inside = [chosen[(chosen >= start) & (chosen < end)] - start for start, end in itertools.pairwise(starts)]
    at = torch.from_numpy(chosen)
    return Rows(
        batch={
            name: torch.from_numpy(np.concatenate([part[name][own] for part, own in zip(parts, inside, strict=True)]))
            for name in COLUMNS
            if name in parts[0].arrays
        },
        text=None if text is None else text[at],
        labels=labels[at],
        weights=None if weights is None else weights[chosen],
    )


@torch.no_grad()
def fit_companion(network: Network, rows: Rows, later: Rows | None, seed: int) -> "Unseen | None":
    """Give `network` a companion that is fitted to the rows; its blend is that of the companion before it, if any.

    Strength and rounds are likewise those of the companion before it; else they are chosen on the rows `later`, or if
    there are none by cross-validation, and what was said of the rows in that is returned.
    """
    assert network.target is not None
    before, n_outputs = network.companion, network.target.n_outputs
    n_encoded = n_outputs if n_outputs <= MAX_ENCODED_OUTPUTS else 1
    columns = Columns(network.sizes, n_outputs, n_encoded, reads_text=network.wide is not None)
    fit = _Fit(network.target, columns, rows, later, seed)
    shape, unseen = fit.choose() if before is None else (before.shape, None)
    arrays = as_arrays(fit.trees(rows, fit.inputs, shape.n_rounds))
    shape = replace(shape, n_encoded=n_encoded, n_nodes=arrays.n_nodes, n_trees=arrays.n_trees, depth=arrays.depth)
    companion = Companion(network.sizes, n_outputs, shape, reads_text=network.wide is not None)
    companion.columns.load_state_dict(columns.state_dict())
    if companion.trees is not None:
        companion.trees.load_state_dict(arrays.tensors)
    weight, bias = fit.line(rows, fit.lines, shape.strength)
    companion.line.by_slot.copy_(torch.from_numpy(weight[: columns.n_slots]))
    companion.line.weight.copy_(torch.from_numpy(weight[columns.n_slots :]))
    companion.line.bias.copy_(torch.from_numpy(bias))
    if before is not None:
        companion.mix.copy_(before.mix)
    network.companion = companion.to(network.device).eval()
    return unseen


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """What parts fitted without them say of rows."""

    logits: dict[str, Tensor]
    """float64 [n, o] of each part."""
    labels: Tensor
    """As of `Head.loss_labels`."""


class _Fit:
    """What the fits of one companion have in common."""

    def __init__(self, target: Target, columns: Columns, rows: Rows, later: Rows | None, seed: int) -> None:
        self.target, self.head, self.columns, self.rows, self.seed = target, target.head, columns, rows, seed
        outputs = self.head.outputs(rows.labels, target.n_outputs).numpy()
        encoded = _fit_columns(columns, rows, outputs, seed)
        self.inputs = torch.cat([*encoded, *columns.beside_categories(rows.batch, rows.text)], dim=1).numpy()
        self.lines = _line_inputs(columns, rows)
        self.judged, self.judged_inputs, self.judged_lines = rows, self.inputs, self.lines
        if later is not None:
            self.judged, self.judged_lines = later, _line_inputs(columns, later)
            self.judged_inputs = columns.for_trees(later.batch, later.text).numpy()
        self.folds = list(_folds(rows, later, seed))

    def choose(self) -> tuple[Shape, Unseen]:
        """Return rounds and strength of least loss on rows that trees and line were not fitted to, and their logits."""
        fitted: list[Boosted] = []

        def trees(n_rounds: int, before: list[Boosted] | None) -> list[Boosted]:
            fitted[:] = [
                self.trees(self.rows[learnt], self.inputs[learnt], n_rounds, None if before is None else before[at])
                for at, (learnt, _) in enumerate(self.folds)
            ]
            return list(fitted)

        def losses_by_round(fitted: list[Boosted]) -> np.ndarray:
            return np.sum(
                [
                    [self._loss(answers, at) for answers in trees.staged(self.judged_inputs[at])]
                    for trees, at in zip(fitted, chosen, strict=True)
                ],
                axis=0,
            )

        chosen = [judged for _, judged in self.folds]
        n_rounds = choose_rounds(trees, losses_by_round)
        said_by_trees = [
            next(itertools.islice(each.staged(self.judged_inputs[at]), n_rounds - 1, None))
            for each, at in zip(fitted, chosen, strict=True)
        ]
        least, strength, said_by_line = np.inf, STRENGTHS[0], said_by_trees
        for tried in STRENGTHS:
            lines = [self.line(self.rows[learnt], self.lines[learnt], tried) for learnt, _ in self.folds]
            answers = [self.judged_lines[at] @ line[0] + line[1] for at, line in zip(chosen, lines, strict=True)]
            loss = sum(self._loss(each, at) for each, at in zip(answers, chosen, strict=True))
            if loss < least:
                least, strength, said_by_line = loss, tried, answers
        at = torch.from_numpy(np.concatenate(chosen))
        logits = {
            name: torch.from_numpy(np.concatenate(each))
            for name, each in {LINE: said_by_line, TREES: said_by_trees}.items()
        }
        if self.judged.text is not None:
            logits[TEXT] = self.judged.text[at].double()
        return Shape(n_rounds=n_rounds, strength=strength), Unseen(logits=logits, labels=self.judged.labels[at])

    def trees(self, rows: Rows, inputs: np.ndarray, n_rounds: int, before: Boosted | None = None) -> Boosted:
        """Return trees fitted to rows, those of `before` among them. Shapes: inputs [n, k]."""
        labels, n_outputs = rows.labels.numpy(), self.target.n_outputs
        return fit_trees(self.head, inputs, labels, n_outputs, n_rounds, rows.weights, self.seed, before)

    def line(self, rows: Rows, inputs: Any, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of a line fitted to rows. Shapes: inputs sparse [n, k]; returns [k, o], [o]."""
        return fit_line(self.head, inputs, rows.labels.numpy(), self.target.n_outputs, strength, rows.weights)

    def _loss(self, answers: np.ndarray, chosen: np.ndarray) -> float:
        """Return the loss of what is said of some of the judged rows. Shapes: [m, o], int64 [m]."""
        weights = None if self.judged.weights is None else torch.from_numpy(self.judged.weights[chosen]).float()
        return float(Loss(target=self.target)(torch.from_numpy(answers), self.judged.labels[chosen], weights))


def _fit_columns(columns: Columns, rows: Rows, outputs: np.ndarray, seed: int) -> list[Tensor]:
    """Fit scales, and the numbers that stand for categories; return those of the rows, each without its own label.

    Shapes: outputs float64 [n, o]; returns at most one float32 [n, categories * e].
    """
    if columns.n_plain:
        plain = columns.plain(rows.batch, rows.text).double().numpy()
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(plain)
            count = known.sum(0).clip(1)
            centre = np.where(known, plain, 0).sum(0) / count
            scale = np.sqrt((np.where(known, plain - centre, 0) ** 2).sum(0) / count)
        columns.centre.copy_(torch.from_numpy(centre))
        columns.scale.copy_(torch.from_numpy(np.where(scale > 1e-6, scale, 1.0)))
    if not columns.n_categories:
        return []
    slots, n_encoded = columns.slots(rows.batch).numpy(), columns.encodings.shape[1]
    if n_encoded < outputs.shape[1]:
        columns.encodings.copy_(torch.arange(columns.n_slots, dtype=torch.float32)[:, None])
        return [columns.encodings[columns.slots(rows.batch)].flatten(1)]
    own = np.empty((*slots.shape, n_encoded), np.float32)
    for output in range(n_encoded):
        own[..., output] = _encode_by_target(columns, slots, outputs[:, output], output, seed)
    return [torch.from_numpy(own).flatten(1)]


def _encode_by_target(columns: Columns, slots: np.ndarray, y: np.ndarray, output: int, seed: int) -> np.ndarray:
    """Fit the means of an output by slot, drawn to the mean of all; return those of the rows.

    Shapes: slots [n, c], y [n] -> [n, c].
    Source: Micci-Barreca 2001, "A preprocessing scheme for high-cardinality categorical attributes".
    """
    from sklearn.model_selection import KFold
    from sklearn.preprocessing import TargetEncoder

    folds = KFold(min(N_FOLDS, max(2, len(y))), shuffle=True, random_state=seed)
    encoder = TargetEncoder(target_type="continuous", cv=folds)
    own = encoder.fit_transform(slots, y) if len(y) > 1 else np.full(slots.shape, y.mean())
    columns.encodings[:, output] = float(y.mean())
    if len(y) > 1:
        for known, means in zip(encoder.categories_, encoder.encodings_, strict=True):
            columns.encodings[torch.from_numpy(known.astype(np.int64)), output] = torch.from_numpy(means).float()
    return own


def _line_inputs(columns: Columns, rows: Rows) -> Any:
    """Return one-hot categories and standardised numbers as a sparse matrix. Shapes: [n, slots + k]."""
    from scipy import sparse

    n, parts = len(rows), []
    if columns.n_categories:
        slots = columns.slots(rows.batch).numpy()
        at = (np.repeat(np.arange(n), slots.shape[1]), slots.ravel())
        parts.append(sparse.csr_matrix((np.ones(slots.size), at), shape=(n, columns.n_slots)))
    if columns.n_plain:
        numbers = columns.standardised(columns.plain(rows.batch, rows.text)).double().numpy()
        parts.append(sparse.csr_matrix(numbers))
    return sparse.hstack(parts, format="csr")


def _folds(rows: Rows, later: Rows | None, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield which rows to fit to and which to judge by: numbers of `rows`, or of `later` where there are such."""
    if later is not None:
        yield np.arange(len(rows)), np.arange(len(later))
        return
    fold = np.random.default_rng(seed).permutation(len(rows)) % min(N_FOLDS, len(rows))
    for number in range(min(N_FOLDS, len(rows)) if len(rows) <= FEW_ROWS else 1):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def fit_line(
    head: Head, inputs: Any, y: np.ndarray, n_outputs: int, strength: float, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of a regression with a ridge penalty, logistic where labels are classes.

    Shapes: inputs sparse [n, k]; y [n] or [n, o]; returns float64 [k, o], [o].
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    weight, bias = np.zeros((inputs.shape[1], n_outputs)), np.zeros(n_outputs)
    if not head.has_classes:
        ridge = Ridge(alpha=strength, solver="lsqr", tol=1e-6).fit(inputs, y.reshape(len(y), -1), weights)
        return ridge.coef_.reshape(n_outputs, -1).T, ridge.intercept_.reshape(-1)
    columns = [y] if y.ndim == 1 else list(y.T)
    is_of_several = len(columns) == 1 and n_outputs > 1
    if is_of_several:
        bias -= LOGIT_OF_NONE  # of a class that these rows do not hold
    for at, column in enumerate(columns):
        known = np.unique(column.astype(np.int64))
        if len(known) == 1:
            bias[known[0] if is_of_several else at] = LOGIT_OF_NONE if is_of_several or known[0] else -LOGIT_OF_NONE
            continue
        model = LogisticRegression(C=1 / strength, max_iter=300, tol=1e-3)
        model.fit(inputs, column.astype(np.int64), sample_weight=weights)
        found, start = model.coef_.T, model.intercept_
        if is_of_several:
            if len(known) == 2:
                found, start = np.hstack([-found / 2, found / 2]), np.r_[-start / 2, start / 2]
            weight[:, known], bias[known] = found, start
        else:
            weight[:, at], bias[at] = found[:, 0], start[0]
    return weight, bias


@torch.no_grad()
def said_by(companion: Companion, rows: Rows) -> dict[str, Tensor]:
    """Return what each part beside the encoder says of rows, by its name. Shapes: float32 [n, o] each."""
    cut = [rows[part] for part in np.array_split(np.arange(len(rows)), range(CHUNK_ROWS, len(rows), CHUNK_ROWS))]
    answers = {LINE: torch.cat([companion.line_logits(part.batch, part.text) for part in cut])}
    if rows.text is not None:
        answers[TEXT] = rows.text
    if companion.trees is not None:
        answers[TREES] = torch.cat([companion.tree_logits(part.batch, part.text) for part in cut])
    return answers
