"""Split what is said of single rows among the parts of the blend, and the Transformer's part among the columns.

Each part of the blend counts what it says of the row less what it says of a blank one, in which every cell is missing;
these add up to the difference of the logits, those before calibration. The Transformer's share is split by integrated
gradients along the straight way from the tokens of the blank row to those of the row: its columns add up to it, but for
the error of the integral, which is told. Trees have no gradients: they, and the linear parts, count as a whole.
Sequences such as texts stay as long as they are in the blank row, and say nothing there.

Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017).

Shape legend: k points of the way, w windows of a row, n tokens, d width, o outputs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import CONTEXT, column_kinds, sequence_kinds
from model.features.kinds.base import missing_cells
from model.network.blend import DEEP
from model.network.network import Network

POINTS = (16, 64, 256, 1024)
"""Points of the way: more where the error of the integral is larger than TOLERANCE, within the budget."""
TOLERANCE = 0.01
"""In logits."""
BUDGET = 4e11
"""Multiplications that a row may take: some seconds of two cores."""
BOTH_WAYS = 3
"""A gradient takes about twice what the network's answer itself does."""
TOKENS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """What moved the answer about a row, in logits; of a number, in standard deviations of the target."""

    answer: int
    """The output that is explained: the likeliest one, of a number with quantiles the number."""
    parts: Mapping[str, float]
    """By part of the blend, and of the context columns: what it adds to a blank row's logit."""
    columns: Mapping[str, float]
    """The Transformer's part by column; of texts, images or events by all columns of the kind."""

    @property
    def gap(self) -> float:
        """Return what the columns leave of the Transformer's part: the error of the integral."""
        return self.parts.get(DEEP, 0.0) - sum(self.columns.values())


def attribute(network: Network, features: Features, table: Table) -> list[Attribution]:
    """Return what moved the answer about each row of a table of few rows.

    Raises: ValueError for a network that answers nothing.
    """
    if network.target is None or network.head is None:
        raise ValueError("what moves an answer can be told of a network with a head, and this one has none")
    encoded = features.encode(table)
    nothing = features.encode({name: missing_cells(kind, 1) for name, kind in features.kinds.items()})
    network.eval()
    return [_of_row(network, features, encoded, nothing, row) for row in range(len(encoded))]


def _of_row(network: Network, features: Features, encoded: Encoded, nothing: Encoded, row: int) -> Attribution:
    batch, blank = network.batch_of(encoded, np.array([row])), network.batch_of(nothing, np.array([0]))
    blend = network.blend or {DEEP: 1.0}
    with torch.no_grad():
        assert network.target is not None
        answer = 0 if network.target.levels else int(network.allowed(batch)[0].argmax())
        tokens, blank_tokens = _tokens(network, batch), _tokens(network, _blanked(network, batch, blank))
        row_says, blank_says = network.parts(batch, [*blend]), network.parts(blank, [*{*blend} - {DEEP}])
        if DEEP in blend:
            with _reading(network, blank_tokens):
                blank_says[DEEP] = network.deep(batch)
        added = {name: blend[name] * float((row_says[name] - blank_says[name])[0, answer]) for name in blend}
        if network.context is not None:
            added[CONTEXT] = float(network.context(batch[CONTEXT] - blank[CONTEXT])[0, answer])

    def deep(along: Tensor) -> Tensor:
        copies = network.batch_of(encoded, np.full(len(along), row))
        with _reading(network, along.flatten(0, 1)):
            return network.deep(copies)[:, answer]

    found = Attribution(answer=answer, parts=added, columns={})
    at_once = max(1, TOKENS_AT_ONCE // (tokens.shape[0] * tokens.shape[1]))
    for n_points in _points(network, tokens) if DEEP in blend else ():
        by_token = integrated_gradients(deep, blank_tokens, tokens, n_points=n_points, at_once=at_once).sum((0, 2))
        found = replace(found, columns=_by_column(blend[DEEP] * by_token, features, batch))
        if abs(found.gap) <= TOLERANCE:
            break
    return found


def _points(network: Network, tokens: Tensor) -> list[int]:
    """Return the numbers of points that the budget admits, the fewest at least. Shapes: tokens [w, n, d]."""
    settings, n_tokens = network.settings, tokens.shape[0] * tokens.shape[1]
    of_token = settings.n_layers * (4 * settings.d_model**2 + 2 * settings.d_model * settings.d_feedforward)
    return [POINTS[0], *(each for each in POINTS[1:] if each * BOTH_WAYS * n_tokens * of_token <= BUDGET)]


def integrated_gradients(
    function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, *, n_points: int, at_once: int
) -> Tensor:
    """Return what each number adds on the straight way from start to end; the sum is the function's difference.

    The integral is taken by Gauss and Legendre's rule. Shapes: function [k, ...] -> [k]; start, end [...] -> [...].
    """
    places, weights = (torch.from_numpy(each).to(start) for each in np.polynomial.legendre.leggauss(n_points))
    slope = torch.zeros_like(start)
    for first in range(0, n_points, at_once):
        part = slice(first, first + at_once)
        shares = (places[part].reshape(-1, *[1] * start.ndim) + 1) / 2
        along = (start + shares * (end - start)).detach().requires_grad_()
        (gradients,) = torch.autograd.grad(function(along).sum(), along)
        slope += torch.tensordot(weights[part], gradients, 1) / 2
    return (end - start) * slope


def _blanked(network: Network, batch: Mapping[str, Tensor], blank: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the inputs of a row whose columns are missing and whose sequences, of the same length, say nothing."""
    inputs = dict(batch)
    for kind in column_kinds():
        if kind.input in batch:
            inputs[kind.input] = blank[kind.input].expand_as(batch[kind.input])
    for kind in sequence_kinds():
        if kind.input in batch:
            inputs[kind.input] = kind.blank(batch[kind.input], network.sizes)
    return inputs


def _tokens(network: Network, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the tokens before they are normalised. Shapes: [w, n, d]."""
    found: list[Tensor] = []
    with network.embeddings.LayerNorm.register_forward_pre_hook(lambda _, given: found.append(given[0])):
        network.encode(batch, only_first=True)
    return found[0]


@contextmanager
def _reading(network: Network, tokens: Tensor) -> Iterator[None]:
    """Have the network read these tokens, whatever the batch holds. Shapes: [w, n, d] of all rows of the batch."""
    with network.embeddings.LayerNorm.register_forward_pre_hook(lambda *_: (tokens,)):
        yield


def _by_column(by_token: Tensor, features: Features, batch: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the sums of the tokens of each column, which lie after [CLS]. Shapes: [n]."""
    values, columns, at = by_token.double().cpu(), dict[str, float](), 1
    for kind in column_kinds():
        for name in features.fitted[kind.name].columns:
            columns[name] = float(values[at])
            at += 1
    for kind in sequence_kinds():
        if kind.input in batch:
            n_tokens = batch[kind.input].shape[1]
            columns[", ".join(features.fitted[kind.name].columns)] = float(values[at : at + n_tokens].sum())
            at += n_tokens
    return columns
