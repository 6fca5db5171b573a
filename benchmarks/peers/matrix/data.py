"""The parts of a product as a peer reads them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 0


class Data:
    """Training and validation rows together to fit on, and the held-out rows to score."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.order = json.loads((folder / "order.json").read_text())
        train, val, self.test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "val", "test"))
        fitted = pd.concat([train, val], ignore_index=True)
        if "y" in fitted and self.order["task"] != "reconstruct":
            fitted = fitted[fitted["y"].notna() & (fitted["y"] >= 0)].reset_index(drop=True)
        if self.order["task"] == "reconstruct":
            fitted = fitted[fitted["y"] < 0].reset_index(drop=True)  # rows as they came
        self.fitted = fitted
        self.test = self.test.drop(columns=["y", self.order["label"]], errors="ignore")
        self.kinds: dict[str, str] = self.order["columns"]
        self.classes: list[str] = self.order["classes"]

    @property
    def y(self) -> np.ndarray:
        """Return the labels of the rows to fit on."""
        return self.fitted["y"].to_numpy()

    def of(self, kind: str) -> list[str]:
        """Return the names of the columns of a kind."""
        return [name for name, each in self.kinds.items() if each == kind]

    def source(self, name: str) -> pd.DataFrame:
        """Return another source of the product, whole."""
        return pd.read_parquet(self.folder / f"{name}.parquet")
