"""Oracle: numpy's solution of linear equations, scipy's optimiser, and the law that no step makes it worse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from model.training.optimum import minimise


def zeros(*shape):
    return torch.zeros(shape, dtype=torch.float64, requires_grad=True)


@given(st.integers(1, 6), st.integers(0, 1000), st.floats(0.1, 100))
@settings(max_examples=25, deadline=None)
def test_minimum_of_a_quadratic_is_the_solution_of_its_equations(n, seed, stretch):
    random = np.random.default_rng(seed)
    root = random.normal(size=(n, n)) * np.linspace(1, stretch**0.5, n)
    squares, slope = torch.from_numpy(root.T @ root + np.eye(n)), torch.from_numpy(random.normal(size=n))
    weight = zeros(n)

    def objective():
        return weight @ squares @ weight / 2 - slope @ weight

    minimise([weight], objective)
    wanted = np.linalg.solve(squares.numpy(), slope.numpy())
    np.testing.assert_allclose(weight.detach(), wanted, atol=1e-3)
    assert objective().item() == pytest.approx(-slope.numpy() @ wanted / 2, abs=1e-8)


def test_minimum_of_a_penalised_logistic_loss_is_scipys():
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 3))
    y = (random.random(200) < 1 / (1 + np.exp(-rows @ [1.0, -2.0, 0.5] - 0.3))).astype(float)

    def by_numpy(parts):
        logits = rows @ parts[:3] + parts[3]
        return np.mean(np.logaddexp(0, logits) - y * logits) + 0.01 * (parts[:3] ** 2).sum()

    def by_torch():
        logits = torch.from_numpy(rows) @ weight + bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(y))
        return loss + 0.01 * weight.square().sum()

    weight, bias = zeros(3), zeros()
    minimise([weight, bias], by_torch)
    wanted = minimize(by_numpy, np.zeros(4), tol=1e-10)
    np.testing.assert_allclose([*weight.tolist(), bias.item()], wanted.x, atol=1e-4)
    assert by_torch().item() == pytest.approx(wanted.fun, abs=1e-9)


def test_weights_at_the_minimum_stay_there():
    weight = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    minimise([weight], lambda: (weight - torch.tensor([2.0, -1.0])).square().sum())
    assert weight.tolist() == [2.0, -1.0]


@given(st.lists(st.tuples(st.floats(-20, 20), st.integers(0, 1)), min_size=1, max_size=10))
@settings(max_examples=20, deadline=None)
def test_value_never_rises_even_where_no_minimum_exists(rows):
    """Rows that a line parts without a mistake have a logistic loss that falls for ever."""
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    weight = zeros()

    def loss():
        return torch.nn.functional.binary_cross_entropy_with_logits(x * weight, y)

    before = loss().item()
    minimise([weight], loss)
    assert weight.isfinite()
    assert loss().item() <= before + 1e-12
