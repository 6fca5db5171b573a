"""The only place that knows where things lie under `data/`.

Every path is relative to the working directory, which is the root of the repository or of a run's workspace.
"""

from dataclasses import dataclass
from pathlib import Path

DATA = Path("data")


@dataclass(frozen=True)
class Paths:
    """The files and folders of one product."""

    product: str

    @property
    def raw(self) -> Path:
        """As delivered: rows/dt=D.parquet, labels/dt=D.parquet and index.json. Append-only."""
        return DATA / "raw" / self.product

    @property
    def valid(self) -> Path:
        """What passed validation: rows/dt=D.parquet and labels/dt=D.parquet, typed."""
        return DATA / "valid" / self.product

    @property
    def quarantine(self) -> Path:
        """What did not: rows.parquet and labels.parquet, with the reasons."""
        return DATA / "quarantine" / self.product

    @property
    def splits(self) -> Path:
        """train.parquet, val.parquet, test.parquet (labelled) and pretrain.parquet (all but the held-out rows)."""
        return DATA / "splits" / self.product

    @property
    def pretrained(self) -> Path:
        """Weights that `train` starts from."""
        return DATA / "models" / self.product / "pretrained"

    @property
    def trained(self) -> Path:
        """The fine-tuned weights."""
        return DATA / "models" / self.product / "trained"

    @property
    def onnx(self) -> Path:
        """What `predict` runs."""
        return DATA / "models" / self.product / "onnx"

    @property
    def predictions(self) -> Path:
        """part-00000.parquet ... and night.json."""
        return DATA / "predictions" / self.product

    def report(self, name: str) -> Path:
        """A report: validation.json, split.json, pretraining.csv, training.csv, metrics.json, export.json ..."""
        return DATA / "reports" / self.product / name
