"""Oracle: means by hand; the same rows with the label of one of them changed."""

import numpy as np
import torch

from model.features.encoded import Sizes
from model.features.fitted import Features
from model.network.companion import Columns
from model.training.columns import MANY_ROWS, PRIOR_ROWS, fit_columns, read_columns


def a_shop_of(counts, seed=0):
    """Rows of a category whose values have these counts, fitted features, and noise as labels."""
    shop = np.repeat([f"s{at}" for at in range(len(counts))], counts).astype(object)
    random = np.random.default_rng(seed)
    shop = shop[random.permutation(len(shop))]
    features = Features.fit({"shop": "category"}, {"shop": shop}, None, "regression", max_tokens=8)
    return shop, features, random.normal(size=(len(shop), 1))


def columns_of(sizes: Sizes) -> Columns:
    return Columns(sizes, 1, 1, reads_text=False)


def fitted(shop, features, y):
    batch = {"categories": torch.from_numpy(features.encode({"shop": shop})["categories"])}
    columns = columns_of(features.sizes)
    return columns, batch, fit_columns(columns, batch, None, y, seed=0).trees[:, 0]


def test_category_of_many_rows_is_one_number_and_that_is_their_mean():
    shop, features, y = a_shop_of([200, 100, MANY_ROWS])
    columns, batch, own = fitted(shop, features, y)
    for name in np.unique(shop):
        rows = y[shop == name, 0]
        expected = (rows.sum() + PRIOR_ROWS * y.mean()) / (len(rows) + PRIOR_ROWS)
        np.testing.assert_allclose(own[shop == name], expected, rtol=1e-6)
    np.testing.assert_array_equal(own, read_columns(columns, batch, None).trees[:, 0])


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
