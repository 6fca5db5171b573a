"""LightGBM with 200 trees on the rows of benchmarks/scoring.py: run under the peers' Python.

The last line printed is {"seconds", "probabilities"}. Usage: peer_lightgbm.py FOLDER, which holds train.parquet and
night.parquet with the same columns, the target (0 or 1) in train.parquet as `target`.
"""

import json
import sys
import time
from pathlib import Path

import lightgbm
import pandas as pd

N_TREES = 200


def main() -> None:
    folder = Path(sys.argv[1])
    train = _categorical(pd.read_parquet(folder / "train.parquet"))
    categories = {name: column.cat.categories for name, column in train.items() if column.dtype == "category"}
    model = lightgbm.LGBMClassifier(n_estimators=N_TREES, verbose=-1)
    model.fit(train.drop(columns="target"), train["target"])
    model.predict_proba(train.drop(columns="target").head(64))  # warm, as ours is
    started = time.perf_counter()
    night = pd.read_parquet(folder / "night.parquet")
    for name, known in categories.items():
        night[name] = pd.Categorical(night[name], known)
    scores = model.predict_proba(_categorical(night))[:, 1]
    night.assign(probability=scores).to_parquet(folder / "peer.parquet")
    print(json.dumps({"seconds": time.perf_counter() - started, "probabilities": scores.tolist()}))


def _categorical(table: pd.DataFrame) -> pd.DataFrame:
    """Text as categories, moments as seconds."""
    for name, column in table.items():
        if pd.api.types.is_datetime64_any_dtype(column):
            table[name] = column.astype("datetime64[s]").astype("int64") % 86400
        elif not pd.api.types.is_numeric_dtype(column) and column.dtype != "category":
            table[name] = column.astype("category")
    return table


if __name__ == "__main__":
    main()
