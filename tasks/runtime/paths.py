"""Name the files and folders of a product under `data/`: the only place that knows where things lie.

Paths are relative to the working directory, which is the root of the repository or of a run's workspace, unless
another root is given, such as that of a fold or a trial.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DATA = Path("data")
MADE = "rows.parquet"
"""The file with rows that a model made up, in their folder."""
Table = Literal["rows", "labels"]
TABLES: tuple[Table, ...] = ("rows", "labels")
"""The two tables of a product: what is known when a row is scored, and what becomes known later."""


@dataclass(frozen=True)
class Paths:
    """The files and folders of one product."""

    product: str
    """The product's name."""
    root: Path = DATA
    """The folder that holds raw/, valid/, models/ and the others."""

    @property
    def raw(self) -> Path:
        """Return the raw data: rows/dt=D.parquet, labels/dt=D.parquet, index.json and index/. Append-only."""
        return self.root / "raw" / self.product

    @property
    def valid(self) -> Path:
        """Return the valid rows and labels: rows/dt=D.parquet and labels/dt=D.parquet, typed."""
        return self.root / "valid" / self.product

    @property
    def quarantine(self) -> Path:
        """Return the rows in quarantine: rows.parquet and labels.parquet, with the reasons."""
        return self.root / "quarantine" / self.product

    @property
    def splits(self) -> Path:
        """Return the labelled train.parquet, val.parquet and test.parquet, and for init: pretrain all not held out."""
        return self.root / "splits" / self.product

    @property
    def pretrained(self) -> Path:
        """Return the weights that `train` starts from."""
        return self.root / "models" / self.product / "pretrained"

    @property
    def trained(self) -> Path:
        """Return the fine-tuned weights."""
        return self.root / "models" / self.product / "trained"

    @property
    def onnx(self) -> Path:
        """Return the exported model, which `predict` runs."""
        return self.root / "models" / self.product / "onnx"

    @property
    def made_rows(self) -> Path:
        """Return the folder of rows that the model made up, by `predict.make_rows`: rows.parquet, if any."""
        return self.root / "made_rows" / self.product

    @property
    def predictions(self) -> Path:
        """Return the night: part-00000.parquet ... and night.json."""
        return self.root / "predictions" / self.product

    def report(self, name: str) -> Path:
        """Return a report: validation.json, split.json, pretraining.csv, training.csv, metrics.json, export.json ..."""
        return self.root / "reports" / self.product / name
