"""Deliver the 70,000 pictures of Fashion-MNIST as PNG files, from Debian's package `dataset-fashion-mnist`.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms"
(2017). They carry no dates. So that its own test pictures are what is held out, these are dated later: 1,000 a day, the
60,000 for training from 2013-01-01 on in the order of the hash of their place, the 10,000 others after them.
"""

import gzip
import hashlib
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.sources import between
from tasks.sources.digits import png

FOLDER = Path("/usr/share/datasets/fashion-mnist")
FIRST_DAY = date(2013, 1, 1)
PICTURES_PER_DAY = 1_000
PARTS = ("train", "t10k")
CLASSES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return the pictures that arrive from `start` to `end`, inclusive, one row each, with the picture as bytes."""
    found, first = [], 0
    for part in PARTS:
        pictures, labels = _cells(part, "images-idx3", 16).reshape(-1, 28, 28), _cells(part, "labels-idx1", 8)
        order = sorted(range(len(labels)), key=lambda place, part=part: _hash(part, place))
        for number, place in enumerate(order, start=first):
            arrived = FIRST_DAY + timedelta(days=number // PICTURES_PER_DAY)
            found.append((f"{part}-{place}", arrived.isoformat(), pictures[place], CLASSES[labels[place]]))
        first += len(labels)
    frame = pd.DataFrame(found, columns=["picture_id", "arrived", "picture", "article"])
    frame = between(frame, frame["arrived"], start, end)
    return frame.assign(picture=[png(cells) for cells in frame["picture"]])


def _cells(part: str, name: str, header: int) -> np.ndarray:
    """Return the bytes of a file in the IDX format behind its header. Shapes: uint8 [n]."""
    return np.frombuffer(gzip.decompress((FOLDER / f"{part}-{name}-ubyte.gz").read_bytes()), np.uint8, offset=header)


def _hash(part: str, place: int) -> str:
    return hashlib.sha256(f"{part} {place}".encode()).hexdigest()
