"""Peers of rows that are made up: synthesizers of SDV, fitted to rows as they came."""

import numpy as np
import pandas as pd
from matrix.data import SEED, Data

TABLE = "rows"


class Maker:
    """A synthesizer of SDV for one table."""

    def __init__(self, data: Data) -> None:
        from sdv.metadata import Metadata

        rows = data.fitted[[*data.kinds]].astype(dict.fromkeys(data.of("category"), object))
        metadata = Metadata()
        metadata.add_table(TABLE)
        for name, kind in data.kinds.items():
            metadata.add_column(name, TABLE, sdtype={"category": "categorical", "number": "numerical"}[kind])
        np.random.seed(SEED)
        self.model = self.synthesizer(metadata)
        self.model.fit({TABLE: rows})

    def synthesizer(self, metadata: object) -> object:
        """Return the synthesizer, not fitted yet."""
        raise NotImplementedError

    def make(self, n_rows: int) -> pd.DataFrame:
        """Return rows that nobody has delivered."""
        return self.model.sample(num_rows=n_rows)[TABLE]


class Copula(Maker):
    """A Gaussian copula over fitted marginals. Source: Patki et al. 2016, "The Synthetic Data Vault"."""

    def synthesizer(self, metadata: object) -> object:
        """Return it, by its defaults."""
        from sdv.single_table import GaussianCopulaSynthesizer

        return GaussianCopulaSynthesizer(metadata)


class Ctgan(Maker):
    """A conditional GAN. Source: Xu et al. 2019, arXiv 1907.00503."""

    epochs = 30
    """Of its 300 by default, which would take an hour of a core for these rows."""

    def synthesizer(self, metadata: object) -> object:
        """Return it, by its defaults but for the epochs."""
        import torch
        from sdv.single_table import CTGANSynthesizer

        torch.manual_seed(SEED)
        torch.set_num_threads(1)
        return CTGANSynthesizer(metadata, epochs=self.epochs, enable_gpu=False)


PEERS = {"SDV GaussianCopula": Copula, "SDV CTGAN": Ctgan}
