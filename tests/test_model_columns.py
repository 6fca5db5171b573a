"""Oracle: means by hand; the same rows with the label of one of them changed; numpy's interpolation."""

import numpy as np
import pytest
import torch

from model.features.encoded import Sizes
from model.features.fitted import Features
from model.network.companion import Columns
from model.training.columns import MANY_ROWS, N_PIECES, PRIOR_ROWS, Rows, fit_columns, read_columns


def a_shop_of(counts, seed=0):
    """Rows of a category whose values have these counts, fitted features, and noise as labels."""
    shop = np.repeat([f"s{at}" for at in range(len(counts))], counts).astype(object)
    random = np.random.default_rng(seed)
    shop = shop[random.permutation(len(shop))]
    features = Features.fit({"shop": "category"}, {"shop": shop}, None, "regression", max_tokens=8)
    return shop, features, random.normal(size=(len(shop), 1))


def columns_of(sizes: Sizes) -> Columns:
    return Columns(sizes, 1, 1, reads_text=False)


def rows_of(features, table):
    encoded = features.encode(table)
    batch = {name: torch.from_numpy(encoded[name]) for name in ("categories", "numbers") if name in encoded.arrays}
    return Rows(batch=batch, text=None, labels=torch.zeros(len(encoded)))


def fitted(shop, features, y):
    rows = rows_of(features, {"shop": shop})
    columns = columns_of(features.sizes)
    return columns, rows, fit_columns(columns, rows, y, seed=0).trees[:, 0]


def test_category_of_many_rows_is_one_number_and_that_is_their_mean():
    shop, features, y = a_shop_of([200, 100, MANY_ROWS])
    columns, rows_read, own = fitted(shop, features, y)
    for name in np.unique(shop):
        rows = y[shop == name, 0]
        expected = (rows.sum() + PRIOR_ROWS * y.mean()) / (len(rows) + PRIOR_ROWS)
        np.testing.assert_allclose(own[shop == name], expected, rtol=1e-6)
    np.testing.assert_array_equal(own, read_columns(columns, rows_read).trees[:, 0])


def test_rare_category_tells_a_row_nothing_of_its_own_label():
    shop, features, y = a_shop_of([300, *[5] * 40])
    before = fitted(shop, features, y)[2]
    row = int(np.flatnonzero(shop != "s0")[0])
    changed = y.copy()
    changed[row] += 100
    changed[shop == "s0"] -= 100 / (shop == "s0").sum()  # the mean of all stays
    after = fitted(shop, features, changed)[2]
    assert abs(after[row] - before[row]) < 1e-6
    others = (shop == shop[row]) & (np.arange(len(shop)) != row)
    assert abs(after[others] - before[others]).max() > 1


def of_numbers(numbers):
    """Columns with pieces, fitted to one column of numbers."""
    features = Features.fit({"size": "number"}, {"size": numbers}, None, "regression", max_tokens=8)
    columns = Columns(features.sizes, 1, 1, N_PIECES, reads_text=False)
    fit_columns(columns, rows_of(features, {"size": numbers}), np.zeros((len(numbers), 1)), seed=0)
    return columns, features


def test_pieces_weighed_by_the_heights_of_a_curve_draw_it():
    numbers = np.random.default_rng(0).lognormal(size=400)
    columns, _ = of_numbers(numbers)
    lower, steepness = columns.lower[0].double().numpy(), columns.steepness[0].double().numpy()
    ends = np.append(lower, lower[-1] + 1 / steepness[-1])
    heights = np.sin(3 * ends)
    asked = torch.linspace(ends[0] - 1, ends[-1] + 1, 200, dtype=torch.float64)
    found = columns.double().pieces({"numbers": asked[:, None]}).numpy() @ np.diff(heights) + heights[0]
    np.testing.assert_allclose(found, np.interp(asked.numpy(), ends, heights), atol=1e-6)


def test_pieces_hold_like_many_rows_and_none_of_a_missing_number():
    numbers = np.r_[np.random.default_rng(0).exponential(size=800), [np.nan] * 50]
    columns, features = of_numbers(numbers)
    shares = columns.pieces(rows_of(features, {"size": numbers}).batch).numpy()
    inside = ((shares > 0) & (shares < 1)).sum(0)
    assert inside.min() > 90
    assert inside.max() < 110
    assert not shares[800:].any()


def test_column_of_few_different_numbers_has_a_piece_between_each():
    numbers = np.array([1.0, 1.0, 1.0, 2.0, 5.0] * 20)
    columns, features = of_numbers(numbers)
    shares = columns.pieces(rows_of(features, {"size": np.array([1.0, 2.0, 5.0, np.nan])}).batch).numpy()
    np.testing.assert_allclose(shares[:, :2], [[0, 0], [1, 0], [1, 1], [0, 0]], atol=1e-6)
    assert not shares[:, 2:].any()


@pytest.mark.parametrize("numbers", [[np.nan] * 20, [3.0] * 20, [1e-300, 2e-300] * 10, [-1e308, 1e308] * 10])
def test_column_that_says_nothing_or_too_much_has_pieces_that_are_shares(numbers):
    columns, features = of_numbers(np.array(numbers))
    asked = np.array([np.nan, -np.inf, np.inf, 0.0, 3.0, 1e308])
    shares = columns.pieces(rows_of(features, {"size": asked}).batch).numpy()
    assert ((shares >= 0) & (shares <= 1)).all()
