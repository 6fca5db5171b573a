"""Let a model without labels make up rows, and measure how like the held-out rows they are.

The file has the columns that the source's rows are stored with, in their types. What the model does not read is not
made up: a key names the made row by its number, and a date is that of any training row. How many rows are copies is
counted; that few are is no promise of privacy, and none is made.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from model.evaluation.likeness import (
    Marginal,
    ToldApart,
    Usefulness,
    distinguishability,
    marginals,
    usefulness,
    without_dates,
)
from model.features.fitting import Table
from model.heads import head_of
from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.casting import cast_column
from tasks.rows.partitions import read_pieces, read_table, table_writer
from tasks.runtime import faults
from tasks.runtime.files import atomic_folder
from tasks.runtime.paths import MADE, Paths
from tasks.runtime.records import RECORD, Record

ASKED = "asked.json"
"""How many rows were asked for."""
MAX_KNOWN_ROWS = 100_000
"""Training rows whose cells say what a choice becomes; of more a sample."""
MAX_COMPARED_ROWS = 10_000
"""Rows of a kind that are compared; of more a sample, of made rows the first."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class MadeRows(Record):
    """Rows that a model made up, and how like the held-out ones they are."""

    rows: int
    """In the file."""
    rows_compared: int
    """Of them, those that were compared with held-out rows."""
    told_apart: ToldApart | None
    """None of too few rows."""
    training_rows_told_apart: ToldApart | None
    """The same of training rows in their place: what other days alone make."""
    learnt: Usefulness | None
    """None where no column can be learnt."""
    share_copied: float
    """The share of made rows that equal a training row in all columns."""
    held_out_share_copied: float | None
    """The same of held-out rows: how often that comes by itself."""
    columns: tuple[Marginal, ...]
    """Each column by itself."""

    def metrics(self) -> dict[str, float]:
        """Return its part of metrics.json."""
        found = {"share_copied": self.share_copied}
        if self.told_apart:
            found["told_apart_auc"] = self.told_apart.auc
        if self.learnt:
            found |= {"learnt_from_made": self.learnt.from_made, "learnt_from_real": self.learnt.from_real}
        return {name: round(value, 6) for name, value in found.items()}

    @property
    def summary(self) -> str:
        """Return it for the line that the stage prints; it names no value of the data."""
        apart = f", told from held-out ones with AUC {self.told_apart.auc:.3f}" if self.told_apart else ""
        return f"{self.rows:,} rows made up{apart}, {self.share_copied:.1%} of them copies of a training row"


def make_rows(product: Product, paths: Paths) -> MadeRows | None:
    """Write the rows that `predict.make_rows` asks for with the trained model below `paths`; return what they show.

    None where it asks for none: then the folder says so.
    """
    with atomic_folder(paths.made_rows) as folder:
        # Also where there are none: DVC warns of an empty folder with each training.
        (folder / ASKED).write_text(json.dumps({"rows": product.predict.make_rows or 0}) + "\n", "utf-8")
        if not product.predict.make_rows:
            return None
        file, columns = folder / MADE, list(product.columns)
        training = model_inputs.split_part(paths.splits, "train", product)
        made = write_rows(product, paths, training, file)
        faults.failpoint("evaluate: made rows are written")
        test = held_out_rows(product, paths)
        copied = shares_copied(
            paths.splits / "train.parquet", columns, [read_table(file, columns), test.columns(columns)]
        )
        return _measured(product, made, training, test, copied)


def held_out_rows(product: Product, paths: Paths) -> model_inputs.SplitPart:
    """Return the held-out rows that made ones are compared with: as they came, of more a sample."""
    test = model_inputs.split_part(paths.splits, "test", product)
    y = model_inputs.targets(test.labels, product, model_inputs.classes(test.labels, product))
    return test.only(head_of(product.target.task).is_known(y)).sample(MAX_COMPARED_ROWS)


def write_rows(product: Product, paths: Paths, training: model_inputs.SplitPart, file: Path) -> Table:
    """Write the rows that the trained model below `paths` makes up; return the first, as a model reads them."""
    from tqdm import tqdm

    from model.scoring.scorer import TorchScorer
    from model.scoring.synthesis import BLOCK_ROWS, RowMaker

    scorer, known = TorchScorer(paths.trained), training.sample(MAX_KNOWN_ROWS)
    seed, n = product.model.train.seed, product.predict.make_rows
    maker, days, kept = RowMaker(scorer.network, scorer.features, known.read_all(), seed), known.times, []
    blocks = tqdm(maker.rows(0, n), desc="make rows", total=-(-n // BLOCK_ROWS), unit="block")
    with table_writer(file) as write:
        for numbers, table in blocks:
            write(_frame(product, numbers, table, days, seed))
            if numbers.start < MAX_COMPARED_ROWS:
                kept.append(table)
    together = {name: np.concatenate([table[name] for table in kept]) for name in product.columns}
    return {name: cells[:MAX_COMPARED_ROWS] for name, cells in together.items()}


def _frame(product: Product, numbers: range, table: Table, days: np.ndarray, seed: int) -> pd.DataFrame:
    """Return made rows with key and date, in the types of valid rows."""
    from model.scoring.synthesis import BLOCK_ROWS

    cells: dict[str, pd.Series] = {name: pd.Series(table[name]) for name in product.columns}
    block, start = divmod(numbers.start, BLOCK_ROWS)
    drawn = np.random.default_rng([seed, block, 1]).integers(len(days), size=BLOCK_ROWS)[start : start + len(numbers)]
    for name in product.stored_columns:
        if name not in cells and name == product.time:
            cells[name] = pd.Series(days[drawn])
        elif name not in cells and name in product.key:
            cells[name] = pd.Series([f"made-{number:08}" for number in numbers])
    names = [name for name in product.stored_columns if name in cells]
    return pd.DataFrame({name: cast_column(cells[name], product.kinds[name])[0] for name in names})


def shares_copied(training: Path, columns: list[str], frames: list[pd.DataFrame]) -> list[float | None]:
    """Return the share of each frame's rows that equal a training row in all columns; None without rows."""
    digests = [_digests(frame, columns) for frame in frames]
    wanted = np.unique(np.concatenate(digests))
    found = np.zeros(len(wanted), bool)
    for piece in read_pieces(training):
        found |= np.isin(wanted, _digests(piece.select(columns).to_pandas(), columns))
    known = wanted[found]
    return [float(np.isin(each, known).mean()) if len(each) else None for each in digests]


def _digests(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Return a number of each row, the same where all cells are. Shapes: uint64 [n]."""
    return pd.util.hash_pandas_object(rows[columns], index=False).to_numpy()


def comparable(table: Table, product: Product) -> Table:
    """Return rows by what may tell them apart: not by being of later days, where the rows are split by time."""
    return without_dates(table) if product.split.by == "time" else table


def _measured(
    product: Product,
    made: Table,
    training: model_inputs.SplitPart,
    test: model_inputs.SplitPart,
    copied: list[float | None],
) -> MadeRows:
    seed, kinds = product.model.train.seed, product.columns
    tables = [made, training.sample(MAX_COMPARED_ROWS).read_all(), test.read_all()]
    made, real, held_out = (comparable(table, product) for table in tables)
    print("comparing made rows with held-out ones", flush=True)

    return MadeRows(
        rows=product.predict.make_rows,
        rows_compared=len(next(iter(made.values()))),
        told_apart=distinguishability(kinds, held_out, made, seed),
        training_rows_told_apart=distinguishability(kinds, held_out, real, seed),
        learnt=usefulness(kinds, real, made, held_out, seed),
        share_copied=copied[0] or 0.0,
        held_out_share_copied=copied[1],
        columns=tuple(marginals(kinds, held_out, made)),
    )
