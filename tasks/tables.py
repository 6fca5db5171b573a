"""Parquet rows to the arrays that `model` reads, and truths to targets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.params import Product
from tasks.types import LABEL_SEPARATOR, cast_column

BINARY_CLASSES = ("0", "1")


def inputs(frame: pd.DataFrame, product: Product) -> dict[str, np.ndarray]:
    """The declared inputs of `frame` as the arrays `model.features` describes."""
    return {name: _array(frame[name], kind) for name, kind in product.columns.items()}


def no_rows(product: Product) -> pd.DataFrame:
    """The columns of a product's valid rows, with their types, and no row."""
    none = pd.Series(dtype="str")
    return pd.DataFrame({name: cast_column(none, kind)[0] for name, kind in product.kinds.items()})


def classes(frame: pd.DataFrame, product: Product) -> tuple[str, ...]:
    """The classes in the truths of `frame`, sorted; none for regression."""
    if product.target.task == "regression":
        return ()
    if product.target.task == "binary":
        return BINARY_CLASSES
    truths = frame[product.target.name]
    if product.target.task == "multilabel":
        truths = truths.str.split(LABEL_SEPARATOR, regex=False).explode()
    return tuple(sorted(set(truths.dropna()) - {""}))


def targets(frame: pd.DataFrame, product: Product, known: tuple[str, ...]) -> np.ndarray:
    """The truths of `frame`: int64 [n] class indices (binary, multiclass), float32 [n, C] or float64 [n].

    A class that is not among `known` has index -1: the training rows do not hold it.
    """
    truths = frame[product.target.name]
    match product.target.task:
        case "regression":
            return truths.to_numpy("float64")
        case "binary":
            return truths.to_numpy("int64")
        case "multiclass":
            return pd.Index(known).get_indexer(pd.Index(truths)).astype("int64")
        case _:
            sets = truths.str.split(LABEL_SEPARATOR, regex=False)
            return np.array([[name in labels for name in known] for labels in sets], dtype="float32")


def answerable(
    frame: pd.DataFrame, product: Product, known: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and targets of the rows of `frame` whose truth a model of the classes `known` can give."""
    y = targets(frame, product, known)
    can_be = y >= 0 if product.target.task == "multiclass" else np.ones(len(y), bool)
    return inputs(frame[can_be], product), y[can_be]


def read_split(folder: Path, name: str) -> pd.DataFrame:
    """One part of data/splits."""
    return pd.read_parquet(folder / f"{name}.parquet")


def _array(values: pd.Series, kind: str) -> np.ndarray:
    if kind == "number":
        return values.to_numpy("float64")
    if kind == "time":
        return values.to_numpy("datetime64[s]")
    # By way of Arrow, whose texts pandas holds: ten times as fast as cell by cell, and None where there is none.
    return pa.array(values, from_pandas=True).to_numpy(zero_copy_only=False)
