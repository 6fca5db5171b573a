"""Peers of a class of a picture: pixels with a kernel or trees, and a network of timm from scratch."""

import base64
from io import BytesIO

import numpy as np
import pandas as pd
from matrix.data import SEED, Data
from PIL import Image

SIDE = 28


def pixels(rows: pd.DataFrame) -> np.ndarray:
    """Return the pixels, from 0 to 1, of cells as the splits hold them: PNG as base64. Shapes: float32 [n, 784]."""
    found = [np.asarray(Image.open(BytesIO(base64.b64decode(cell))).convert("L")) for cell in rows["picture"]]
    return np.stack(found).reshape(len(found), SIDE * SIDE).astype(np.float32) / 255


class SVC:
    """A support vector machine with a radial kernel on pixels: scikit-learn's defaults but for C."""

    def __init__(self, data: Data) -> None:
        from sklearn.svm import SVC as Machine

        self.n_classes = len(data.classes)
        self.model = Machine(C=5, decision_function_shape="ovr").fit(pixels(data.fitted), data.y.astype(int))

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each class. Shapes: [n, classes]."""
        scores = np.full((len(rows), self.n_classes), -1e9)
        scores[:, self.model.classes_] = self.model.decision_function(pixels(rows))
        return scores


class LightGBM:
    """LightGBM on pixels."""

    def __init__(self, data: Data) -> None:
        import lightgbm

        settings = {"objective": "multiclass", "num_class": len(data.classes), "learning_rate": 0.1, "num_leaves": 15}
        settings |= {"feature_fraction": 0.2, "max_bin": 31, "verbosity": -1, "num_threads": 1, "seed": SEED}
        self.model = lightgbm.train(settings, lightgbm.Dataset(pixels(data.fitted), data.y), 100)

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each class. Shapes: [n, classes]."""
        return self.model.predict(pixels(rows), num_threads=1)


class ResNet:
    """A small network of timm with one channel, from scratch: its weights do not come by pip."""

    epochs, batch = 8, 64

    def __init__(self, data: Data) -> None:
        import matrix.vision  # noqa: F401
        import timm
        import torch

        torch.manual_seed(SEED)
        torch.set_num_threads(1)
        self.model = timm.create_model("resnet10t", pretrained=False, num_classes=len(data.classes), in_chans=1)
        x, y = torch.from_numpy(pixels(data.fitted)).reshape(-1, 1, SIDE, SIDE), torch.from_numpy(data.y.astype(int))
        optimiser = torch.optim.AdamW(self.model.parameters(), weight_decay=0.05)
        n_steps = self.epochs * -(-len(x) // self.batch)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, n_steps)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x)).split(self.batch):
                loss = torch.nn.functional.cross_entropy(self.model(self._moved(x[rows])), y[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
        self.model.eval()

    def _moved(self, x: object) -> object:
        """Return pictures shifted by up to two pixels, as a person would augment digits."""
        import torch

        down, right = torch.randint(-2, 3, (2,)).tolist()
        return torch.roll(x, (down, right), (2, 3))

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        """Return a score of each class. Shapes: [n, classes]."""
        import torch

        x = torch.from_numpy(pixels(rows)).reshape(-1, 1, SIDE, SIDE)
        with torch.inference_mode():
            return torch.cat([self.model(part) for part in x.split(256)]).numpy()


PEERS = {"SVC on pixels": SVC, "LightGBM on pixels": LightGBM, "timm resnet10t, from scratch": ResNet}
