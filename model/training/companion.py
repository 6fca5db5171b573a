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
from tqdm import tqdm

from model.compute import distributed
from model.features.encoded import Encoded
from model.features.kinds import CATEGORY, CONTEXT, EVENTS, NUMBER, TIME
from model.network.blend import LINE, TEXT, TREES, Shape
from model.network.companion import Columns, Companion
from model.network.network import Network
from model.network.wide import Wide
from model.training.boosting import ROUNDS, Boosted, as_arrays, choose_mean, choose_rounds, fit_trees, growths, tried
from model.training.closed_forms.line import fit_line
from model.training.closed_forms.strengths import least
from model.training.columns import N_FOLDS, N_PIECES, Inputs, Rows, fit_columns, read_columns
from model.training.loss import Loss

FEW_ROWS = 20_000
"""Up to so many, strength and rounds are chosen by cross-validation."""
MAX_ENCODED_OUTPUTS = 20
"""A category is a number for each output: how often its rows have it. Of more outputs it is its place by frequency."""
FOLDED_LABELS = 40_000
"""Rows, times outputs, of which the rows of all folds together are at most so many, unless there are but two."""
MAX_LETTERED = 3_000_000
"""Groups of letters, times outputs, up to which the line reads these beside the columns. It then tells more of few
rows than with what the linear model of subwords says, and takes longer."""
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Ridge penalties of the line on standardised numbers: of a logistic regression the inverse of scikit-learn's C."""
USUAL_STRENGTH = 3.0
PIECEWISE = 1
"""Number of the line that reads pieces of numbers; before it is the one that reads them plainly."""
CHUNK_ROWS = 8192
SILENT_SECONDS = 3.0
"""So long nothing is shown of what is fitted."""
COST_OF_PIECES = 3.0
"""By how much they must lower the loss of all rows together, as a likelihood's: on 100 rows less is noise."""
MAX_CURVED = 4_000_000
"""Numbers of rows, times pieces, times outputs, up to which it is tried whether the line is to read pieces."""


def can_have_companion(network: Network) -> bool:
    """Return whether a network has columns that a companion reads, and labels that it can be fitted to."""
    assert network.target is not None
    return network.target.head.has_companion and any(
        network.sizes.of(kind) for kind in (CATEGORY, NUMBER, TIME, EVENTS)
    )


def read_letters(network: Network, parts: Sequence[Encoded]) -> Wide | None:
    """Return what says how groups of letters count, where the line reads them: if that does not take long."""
    wide, companion = network.wide, network.companion
    if wide is None or not wide.n_letter_groups:
        return None
    if companion is not None:
        return wide if companion.line.n_letter_groups else None
    assert network.target is not None
    n_groups = sum(int((part["bag"] >= wide.starts[-1]).sum()) for part in parts)
    return wide if n_groups * network.target.n_outputs <= MAX_LETTERED else None


@torch.no_grad()
def fit_companion(network: Network, rows: Rows, later: Rows | None, seed: int) -> "Unseen | None":
    """Give `network` a companion that is fitted to the rows; its blend is that of the companion before it, if any.

    Strength and rounds are likewise those of the companion before it; else they are chosen on the rows `later`, or if
    there are none by cross-validation, and what the parts say of the rows that they were judged by is returned.
    """
    assert network.target is not None
    before = network.companion
    fit = _Fit(network, rows, seed, before.shape.grown_for if before else 0)
    shape, unseen = fit.choose(later) if before is None else (before.shape, None)
    columns = fit.columns(shape.n_pieces)
    inputs = fit.fit_columns(columns, rows)
    with fit.progress("trees", sum(shape.n_rounds)) as progress:
        forests = list[Boosted]()
        for growth, n_rounds in enumerate(shape.n_rounds):
            forests += [fit.trees(rows, inputs, growth, n_rounds)] if n_rounds else []
            progress.update(n_rounds)
    arrays = as_arrays(forests)
    shape = replace(
        shape,
        n_encoded=fit.n_encoded,
        n_letter_groups=0 if rows.letters is None else rows.letters.shape[1],
        n_nodes=arrays.n_nodes,
        n_trees=arrays.n_trees,
        depth=arrays.depth,
    )
    companion = Companion(network.sizes, network.target.n_outputs, shape, reads_text=network.wide is not None)
    companion.columns.load_state_dict(columns.state_dict())
    if companion.trees is not None:
        companion.trees.load_state_dict(arrays.tensors)
    weight, bias = fit.mean_line(rows, inputs, shape.strengths)
    line, start = companion.line, 0
    for part in (line.by_slot, line.weight, line.by_letters, line.by_piece):
        part.copy_(torch.from_numpy(weight[start : start + len(part)]))
        start += len(part)
    line.bias.copy_(torch.from_numpy(bias))
    if before is not None:
        companion.mix.copy_(before.mix)
    network.companion = companion.to(network.device).eval()
    return unseen


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """What parts say of rows that they were not fitted to."""

    logits: dict[str, Tensor]
    """float64 [n, o] of each part."""
    labels: Tensor
    """As of `Head.loss_labels`."""
    context: Tensor | None
    """Their context columns, if there are any."""
    at: np.ndarray
    """int64 [n]: which of the fitted rows they are, or which of the later ones."""


@dataclass(frozen=True, kw_only=True)
class _Fold:
    """Rows to fit to, and rows to judge by, which the columns were not fitted to either."""

    learnt: Rows
    learnt_inputs: Inputs
    judged: Rows
    judged_inputs: Inputs


class _Fit:
    """What the fits of one companion have in common."""

    def __init__(self, network: Network, rows: Rows, seed: int, grown_for: int) -> None:
        assert network.target is not None
        self.network, self.target, self.rows, self.seed = network, network.target, rows, seed
        self.head, self.grown_for = network.target.head, grown_for or len(rows)
        n_outputs = self.target.n_outputs
        self.n_encoded = 1 if self.head.levels or n_outputs > MAX_ENCODED_OUTPUTS else n_outputs

    def columns(self, n_pieces: int) -> Columns:
        """Return columns that are not fitted yet, numbers in so many pieces."""
        reads_text = self.network.wide is not None
        return Columns(self.network.sizes, self.target.n_outputs, self.n_encoded, n_pieces, reads_text=reads_text)

    def fit_columns(self, columns: Columns, rows: Rows) -> Inputs:
        """Fit columns to rows and return what is read of these."""
        n_different = 1 if self.head.levels else None  # with quantiles all outputs have the same label
        outputs = self.head.outputs(rows.labels, self.target.n_outputs)[:, :n_different].numpy()
        return fit_columns(columns, rows, outputs, self.seed)

    def choose(self, later: Rows | None) -> tuple[Shape, Unseen]:
        """Return rounds and strength of least loss on rows that trees and line were not fitted to, and their logits."""
        chosen = list(self._cut(later))
        folds = [
            self._fold(self.rows[learnt], (self.rows if later is None else later)[judged]) for learnt, judged in chosen
        ]
        ways = tried(len(self.rows), self.head, self.target.n_outputs)
        forests = [self._choose_rounds(folds, growth) for growth in ways]
        chosen_rounds, by_trees = choose_mean(forests, lambda answers: self._losses(answers, folds))
        of_growth = dict(zip(ways, chosen_rounds, strict=True))
        n_rounds = tuple(of_growth.get(growth, 0) for growth in range(max(ways) + 1))
        strengths, by_line = self._choose_line(folds)
        logits = {
            name: torch.from_numpy(np.concatenate(each)) for name, each in {LINE: by_line, TREES: by_trees}.items()
        }
        texts = [fold.judged.text for fold in folds if fold.judged.text is not None]
        if texts:
            logits[TEXT] = torch.cat(texts).double()
        labels = torch.cat([fold.judged.labels for fold in folds])
        at = np.concatenate([judged for _, judged in chosen])
        contexts = [fold.judged.batch[CONTEXT] for fold in folds if CONTEXT in fold.judged.batch]
        unseen = Unseen(logits=logits, labels=labels, context=torch.cat(contexts) if contexts else None, at=at)
        n_pieces = N_PIECES if any(strengths[PIECEWISE:]) else 0
        shape = Shape(n_rounds=n_rounds, grown_for=self.grown_for, strengths=strengths, n_pieces=n_pieces)
        return shape, unseen

    def _choose_line(self, folds: list[_Fold]) -> tuple[tuple[float, ...], list[np.ndarray]]:
        """Return the strength of each line, 0 for one left out, and what their mean says of the rows of each fold.

        It is the straight line alone, unless pieces are clearly worth it.
        """
        lines = [self._choose_strength(folds, way) for way in range(len(folds[0].learnt_inputs.lines))]
        strengths, answers = choose_mean(lines, lambda answers: self._losses(answers, folds))
        straight, least_loss = lines[0][1], self._losses(answers, folds)
        gain = self._losses(straight, folds) - least_loss
        if not self.head.has_probabilities:  # as a likelihood's, of errors as large as these
            gain *= sum(len(fold.judged) for fold in folds) / max(2 * least_loss, float(np.finfo(np.float32).tiny))
        return (strengths, answers) if gain > COST_OF_PIECES else ((lines[0][0], *[0.0] * len(lines[1:])), straight)

    def _choose_strength(self, folds: list[_Fold], way: int) -> tuple[float, list[np.ndarray]]:
        """Return the strength of least loss, and what so strong a line says of the rows that each fold is judged by."""
        found = dict[float, list[np.ndarray]]()

        def loss(strength: float) -> float:
            lines = [self.line(fold.learnt, fold.learnt_inputs.lines[way], strength) for fold in folds]
            found[strength] = [
                fold.judged_inputs.lines[way] @ weight + bias for (weight, bias), fold in zip(lines, folds, strict=True)
            ]
            return self._losses(found[strength], folds)

        strength = least(STRENGTHS, USUAL_STRENGTH, loss)
        return strength, found[strength]

    def _choose_rounds(self, folds: list[_Fold], growth: int) -> tuple[int, list[np.ndarray]]:
        """Return the rounds of least loss, and what trees of so many say of the rows that each fold is judged by."""

        def trees(n_rounds: int, before: list[Boosted] | None) -> list[Boosted]:
            fitted = [
                self.trees(fold.learnt, fold.learnt_inputs, growth, n_rounds, None if before is None else before[at])
                for at, fold in enumerate(folds)
            ]
            progress.update(n_rounds - progress.n)
            return fitted

        def losses_by_round(fitted: list[Boosted]) -> np.ndarray:
            return np.sum(
                [
                    [self._loss(answers, fold.judged) for answers in trees.staged(fold.judged_inputs.trees)]
                    for trees, fold in zip(fitted, folds, strict=True)
                ],
                axis=0,
            )

        leaves = growths(self.grown_for, folds[0].learnt_inputs.trees.shape[1])[growth].leaves
        with self.progress(f"trees of {leaves} leaves", ROUNDS[-1]) as progress:
            n_rounds, fitted = choose_rounds(trees, losses_by_round, self.target.n_outputs)
        return n_rounds, [
            next(itertools.islice(each.staged(fold.judged_inputs.trees), n_rounds - 1, None))
            for each, fold in zip(fitted, folds, strict=True)
        ]

    def _cut(self, later: Rows | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield which rows to fit to and which to judge by: numbers of rows, or of `later` where there are such."""
        n = len(self.rows)
        if later is not None:
            yield np.arange(n), np.arange(len(later))
            return
        n_folds = n_folds_of(n, self.target.n_outputs)
        if n_folds < 2:  # one row can only be judged by itself
            yield np.arange(n), np.arange(n)
            return
        fold = fold_numbers(n, n_folds, self.seed)
        for number in range(n_folds if n <= FEW_ROWS else 1):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)

    def _fold(self, learnt: Rows, judged: Rows) -> _Fold:
        columns = self.columns(N_PIECES if self.may_curve else 0)
        return _Fold(
            learnt=learnt,
            learnt_inputs=self.fit_columns(columns, learnt),
            judged=judged,
            judged_inputs=read_columns(columns, judged),
        )

    @staticmethod
    def progress(name: str, total: int) -> "tqdm":
        """Return a bar that is shown where it takes longer than a few seconds."""
        return tqdm(total=total, desc=name, unit="round", delay=SILENT_SECONDS, disable=distributed.rank() > 0)

    def trees(self, rows: Rows, inputs: Inputs, growth: int, n_rounds: int, before: Boosted | None = None) -> Boosted:
        """Return trees of one of the `growths` fitted to rows, those of `before` among them."""
        labels, n_outputs = rows.labels.numpy(), self.target.n_outputs
        grown = growths(self.grown_for, inputs.trees.shape[1])[growth]
        return fit_trees(self.head, inputs.trees, labels, n_outputs, n_rounds, rows.weights, self.seed, grown, before)

    @property
    def may_curve(self) -> bool:
        """Return whether it is tried that the line reads numbers in pieces: if that does not take long."""
        n_numbers = len(self.network.sizes.of(NUMBER))
        return 0 < len(self.rows) * n_numbers * N_PIECES * self.target.n_outputs <= MAX_CURVED

    def line(self, rows: Rows, inputs: Any, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of a line fitted to rows. Shapes: inputs [n, k]; returns [k, o], [o]."""
        return fit_line(self.head, inputs, rows.labels.numpy(), self.target.n_outputs, strength, rows.weights)

    def mean_line(self, rows: Rows, inputs: Inputs, strengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of the mean of the lines that have a strength. Shapes: [k, o], [o]."""
        lines = [
            self.line(rows, each, strength) for each, strength in zip(inputs.lines, strengths, strict=False) if strength
        ]
        n_inputs = inputs.lines[-1].shape[1]
        weights = [np.pad(weight, ((0, n_inputs - len(weight)), (0, 0))) for weight, _ in lines]
        return np.mean(weights, axis=0), np.mean([bias for _, bias in lines], axis=0)

    def _losses(self, answers: list[np.ndarray], folds: list[_Fold]) -> float:
        """Return the loss of what is said of the rows that each fold is judged by."""
        return sum(self._loss(each, fold.judged) for each, fold in zip(answers, folds, strict=True))

    def _loss(self, answers: np.ndarray, judged: Rows) -> float:
        """Return the loss of what is said of rows, each by its weight. Shapes: [m, o]."""
        weights = None if judged.weights is None else torch.from_numpy(judged.weights).float()
        return float(Loss(target=self.target)(torch.from_numpy(answers), judged.labels, weights))


def n_folds_of(n_rows: int, n_outputs: int) -> int:
    """Return the parts that rows are cut into to judge by: fewer where fits to them take longer.

    >>> [n_folds_of(100, 3), n_folds_of(1_800, 10), n_folds_of(15_000, 200), n_folds_of(1, 1)]
    [5, 2, 2, 1]
    """
    return min(n_rows, int(np.clip(FOLDED_LABELS // max(1, n_rows * n_outputs), 2, N_FOLDS)))


def fold_numbers(n_rows: int, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, as many rows in each. Shapes: int64 [n]."""
    return np.random.default_rng(seed).permutation(n_rows) % n_folds


@torch.no_grad()
def said_by(companion: Companion, rows: Rows) -> dict[str, Tensor]:
    """Return what each part beside the encoder says of rows, by its name. Shapes: float32 [n, o] each."""
    cut = [rows[part] for part in np.array_split(np.arange(len(rows)), range(CHUNK_ROWS, len(rows), CHUNK_ROWS))]
    answers = {LINE: torch.cat([companion.line_logits(part.batch, part.text) for part in cut])}
    if companion.line.n_letter_groups:
        assert rows.letters is not None
        answers[LINE] = answers[LINE] + torch.from_numpy(rows.letters @ companion.line.by_letters.cpu().numpy()).float()
    if rows.text is not None:
        answers[TEXT] = rows.text
    if companion.trees is not None:
        answers[TREES] = torch.cat([companion.tree_logits(part.batch, part.text) for part in cut])
    return answers
