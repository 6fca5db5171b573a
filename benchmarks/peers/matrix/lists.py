"""Peers of a list of items: where each plane flies next, from where it flew last.

The user of RecTools and implicit is the plane. They learn from every flight that a training row ends with, and from the
history of the rows that are asked, as known then: a newer row of a plane has more of it.
"""

import numpy as np
import pandas as pd
from matrix.data import SEED, Data


class Popularity:
    """The items by how many rows of the last four weeks had them."""

    days = 28

    def __init__(self, data: Data) -> None:
        day = pd.to_datetime(data.fitted[data.order["time"]])
        recent = data.y[(day > day.max() - pd.Timedelta(days=self.days)).to_numpy()]
        self.n_items = len(data.classes)
        self.shares = np.bincount(recent.astype(int), minlength=self.n_items) / len(recent)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each item. Shapes: [n, items]."""
        return np.tile(self.shares, (len(rows), 1))


class OwnHistory:
    """What the row's own history has, the newer the more, then popularity."""

    fading = 0.8

    def __init__(self, data: Data) -> None:
        self.popularity, self.history = Popularity(data), data.order["history"]
        self.numbers = {name: number for number, name in enumerate(data.classes)}

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each item. Shapes: [n, items]."""
        scores = 1e-3 * self.popularity.score(rows)
        for place, column in enumerate(self.history):
            number = rows[column].map(self.numbers).to_numpy(float)
            known = np.flatnonzero(~np.isnan(number))
            scores[known, number[known].astype(int)] += self.fading**place
        return scores


def interactions(data: Data) -> pd.DataFrame:
    """Return each plane with each item that it flew to, and how often, on the last training day."""
    last = data.fitted.assign(item=[data.classes[int(y)] for y in data.y])
    return last.groupby(["plane", "item"]).size().rename("times").reset_index()


class OfPlanes:
    """What recommends by plane: scores of a model of planes and items, popularity where a plane is new."""

    def __init__(self, data: Data) -> None:
        from scipy.sparse import csr_matrix

        self.popularity = Popularity(data)
        pairs = interactions(data)
        planes = sorted(pairs["plane"].unique())
        self.planes = {name: number for number, name in enumerate(planes)}
        items = {name: number for number, name in enumerate(data.classes)}
        place = pairs["plane"].map(self.planes), pairs["item"].map(items)
        shape = (len(planes), len(items))
        self.counts = csr_matrix((pairs["times"].astype("float32"), place), shape=shape)
        self.fit()

    def fit(self) -> None:
        """Fit the model to `counts`."""
        raise NotImplementedError

    def of_plane(self, numbers: np.ndarray) -> np.ndarray:
        """Return a score of each item for planes. Shapes: [n] -> [n, items]."""
        raise NotImplementedError

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each item. Shapes: [n, items]."""
        scores = self.popularity.score(rows)
        number = rows["plane"].map(self.planes).to_numpy(float)
        known = np.flatnonzero(~np.isnan(number))
        scores[known] = self.of_plane(number[known].astype(int))
        return scores


class ALS(OfPlanes):
    """Alternating least squares of implicit, by its defaults but for fewer factors."""

    def fit(self) -> None:
        """Fit the factors."""
        from implicit.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(factors=32, random_state=SEED, num_threads=1)
        model.fit(self.counts, show_progress=False)
        self.of_planes, self.of_items = np.asarray(model.user_factors), np.asarray(model.item_factors)

    def of_plane(self, numbers: np.ndarray) -> np.ndarray:
        """Return the products of the factors."""
        return self.of_planes[numbers] @ self.of_items.T


class EASE(OfPlanes):
    """The closed-form autoencoder of RecTools, by its own regularisation. Source: Steck 2019, arXiv 1905.03375."""

    def fit(self) -> None:
        """Fit the item weights."""
        from rectools import Columns
        from rectools.dataset import Dataset
        from rectools.models import EASEModel

        planes, items = self.counts.nonzero()
        table = {Columns.User: planes, Columns.Item: items, Columns.Weight: self.counts[planes, items].A1}
        data = Dataset.construct(pd.DataFrame(table).assign(**{Columns.Datetime: pd.Timestamp("2013-01-01")}))
        model = EASEModel(regularization=100.0).fit(data)
        inner = data.item_id_map.convert_to_internal(np.arange(self.counts.shape[1]), strict=False)
        weight = np.zeros((self.counts.shape[1],) * 2, np.float32)
        known = data.item_id_map.external_ids.astype(int)
        assert len(inner) == len(known)
        weight[np.ix_(known, known)] = np.asarray(model.weight)
        self.weight = weight

    def of_plane(self, numbers: np.ndarray) -> np.ndarray:
        """Return the planes' counts times the weights."""
        return np.asarray(self.counts[numbers] @ self.weight)


class LightGBM:
    """LightGBM on the columns of the product, one class an item: what a person without a recommender would do."""

    def __init__(self, data: Data) -> None:
        import lightgbm

        # A category of thousands of planes, and small leaves, made it diverge: ndcg 0.09.
        self.columns = [name for name in data.kinds if name != "plane"]
        categories = [name for name in data.of("category") if name != "plane"]
        self.levels = {name: pd.CategoricalDtype(sorted(data.fitted[name].dropna().unique())) for name in categories}
        settings = {"objective": "multiclass", "num_class": len(data.classes), "learning_rate": 0.05, "num_leaves": 7}
        settings |= {"max_bin": 63, "min_data_in_leaf": 100, "lambda_l2": 10.0, "cat_l2": 20.0, "cat_smooth": 20.0}
        settings |= {"min_sum_hessian_in_leaf": 5.0, "verbosity": -1, "num_threads": 1, "seed": SEED}
        self.model = lightgbm.train(settings, lightgbm.Dataset(self._inputs(data.fitted), data.y), 60)

    def _inputs(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[self.columns].astype(self.levels)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each item. Shapes: [n, items]."""
        return self.model.predict(self._inputs(rows), num_threads=1)


PEERS = {
    "popularity": Popularity,
    "own history": OwnHistory,
    "RecTools EASE": EASE,
    "implicit ALS": ALS,
    "LightGBM": LightGBM,
}
