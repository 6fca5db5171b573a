"""Peers of unusual rows: detectors of PyOD, fitted to rows as they came, and asked how unusual each held-out row is."""

import numpy as np
import pandas as pd
from matrix.data import SEED, Data
from sklearn.preprocessing import OneHotEncoder, StandardScaler


class Inputs:
    """Rows as detectors read them: one-hot categories and standardised numbers."""

    def __init__(self, data: Data) -> None:
        self.categories, self.numbers = data.of("category"), data.of("number")
        self.encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, min_frequency=20, dtype=np.float32)
        self.encoder.fit(self._cells(data.fitted))
        self.means = data.fitted[self.numbers].mean()
        self.scaler = StandardScaler().fit(data.fitted[self.numbers].fillna(self.means))

    def _cells(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[self.categories].fillna("").astype(str)

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the inputs. Shapes: float32 [n, m]."""
        numbers = self.scaler.transform(rows[self.numbers].fillna(self.means)).astype(np.float32)
        return np.concatenate([self.encoder.transform(self._cells(rows)), numbers], axis=1)


class Detector:
    """A detector of PyOD on those inputs."""

    most = 50_000
    """Rows to fit on at most."""

    def __init__(self, data: Data) -> None:
        self.inputs = Inputs(data)
        rows = data.fitted.sample(min(len(data.fitted), self.most), random_state=SEED)
        self.model = self.made().fit(self.inputs(rows))

    def made(self) -> object:
        """Return the detector, not fitted yet."""
        raise NotImplementedError

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return how unusual rows are. Shapes: [n]."""
        return self.model.decision_function(self.inputs(rows))


class Ecod(Detector):
    """Empirical cumulative distributions. Source: Li et al. 2022, arXiv 2201.00382."""

    def made(self) -> object:
        """Return it."""
        from pyod.models.ecod import ECOD

        return ECOD()


class Forest(Detector):
    """An isolation forest of PyOD, by its defaults."""

    def made(self) -> object:
        """Return it."""
        from pyod.models.iforest import IForest

        return IForest(random_state=SEED)


class AutoEncoder(Detector):
    """An autoencoder of PyOD, by its defaults."""

    def made(self) -> object:
        """Return it."""
        from pyod.models.auto_encoder import AutoEncoder as Network

        return Network(random_state=SEED, verbose=0, device="cpu")


PEERS = {"PyOD ECOD": Ecod, "PyOD IForest": Forest, "PyOD AutoEncoder": AutoEncoder}
