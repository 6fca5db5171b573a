"""Rows that are made up in the table: how surely trees tell them from held-out ones, beside those of other makers.

Ours come from the model that the product's other line is about, which is not trained twice. The judge is that of
evaluation.json, and the same for all: as many rows of each, against the same held-out ones.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.breadth.schedule import one_thread
from benchmarks.matrix.measuring import BASELINE, OURS, PINS, Bench, fields_of
from model.evaluation.likeness import Usefulness, distinguishability, judge, usefulness
from model.evaluation.paired import N_RANDOM_BLOCKS, Difference, paired_difference
from model.features.fitting import Table
from model.heads.measures import auc
from tasks.rows import model_inputs
from tasks.rows.partitions import read_table
from tasks.runtime.paths import DATA, Paths
from tasks.training.held_out.made_rows import MAX_COMPARED_ROWS, comparable, held_out_rows, shares_copied

METRIC = "told_apart_auc"
TRAINING = "training rows"
"""In place of made ones: what other days alone make."""


class MadeRowsBench(Bench):
    """The rows that are made up of one product. The own baseline draws each column by itself, from training rows."""

    own_names = (OURS, BASELINE, TRAINING)

    def quality(self, competitor: str) -> dict[str, Any]:
        """Return the fields of its line that say how like the real ones its rows are."""
        kinds, seed = self.product.columns, self.product.model.train.seed
        training = model_inputs.split_part(self._paths.splits, "train", self.product)
        held_out = held_out_rows(self.product, self._paths)
        tables = (held_out.read_all(), self._rows(competitor), training.sample(MAX_COMPARED_ROWS).read_all())
        real, made, learnt = (comparable(table, self.product) for table in tables)
        told_apart = distinguishability(kinds, real, made, seed)
        assert told_apart is not None
        lead = None if competitor == OURS else self._lead(real, made)
        return {
            "metric": METRIC,
            "lower_is_better": True,
            "rows": {"train": len(training), "test": len(held_out)},
            "value": told_apart.auc,
            "interval": told_apart.interval_95,
            **fields_of(lead),
            "worth": self._worth(competitor, usefulness(kinds, learnt, made, real, seed)),
        }

    @property
    def _paths(self) -> Paths:
        return Paths(self.product.name, self.folder / DATA)

    def cost(self, competitor: str) -> dict[str, Any]:
        """Make the rows, where it makes any; return what that took."""
        if competitor in (BASELINE, TRAINING):
            return {}
        if competitor == OURS:
            found = {**self._own(), **self.phase("make")}
        else:
            self._own()
            found = peers.run(
                "matrix", self.files, self.entry.name, competitor, pins=PINS, timeout=3 * 3600, **one_thread()
            )
        names = ("seconds", "rows_per_second", "training_bytes", "scoring_bytes")
        return {name: found[name] for name in names}

    def _file(self, competitor: str) -> Path:
        return self.files / f"{competitor} rows.parquet"

    def _rows(self, competitor: str) -> Table:
        """Return what it has made, as a model reads rows."""
        if competitor not in (BASELINE, TRAINING):
            frame = read_table(self._file(competitor), list(self.product.columns))
            return model_inputs.inputs(frame, self.product)
        training = model_inputs.split_part(self._paths.splits, "train", self.product)
        table, random = training.sample(MAX_COMPARED_ROWS).read_all(), np.random.default_rng(0)
        return table if competitor == TRAINING else {name: random.permutation(cells) for name, cells in table.items()}

    def _lead(self, real: Table, made: Table) -> Difference | None:
        """Return how much more surely others are told from the held-out rows than ours are."""
        own = comparable(self._rows(OURS), self.product)
        judged = [judge(self.product.columns, real, each, self.product.model.train.seed) for each in (own, made)]
        (is_other, ours), (_, theirs) = (each for each in judged if each)
        block = np.tile(np.arange(len(is_other) // 2) % N_RANDOM_BLOCKS, 2)
        return paired_difference(
            lambda kept: auc(is_other[kept], theirs[kept]) - auc(is_other[kept], ours[kept]), block
        )

    def _worth(self, competitor: str, learnt: Usefulness | None) -> dict[str, float]:
        """Return what trees learn from the rows, and how many of those that were made are copies."""
        found = {}
        if learnt:
            found = {"learnt from made": learnt.from_made, "learnt from real": learnt.from_real}
        if competitor not in (BASELINE, TRAINING):
            columns = list(self.product.columns)
            made = read_table(self._file(competitor), columns)
            (copied,) = shares_copied(self._paths.splits / "train.parquet", columns, [made])
            found |= {} if copied is None else {"copied": copied}
        return {name: round(value, 4) for name, value in found.items()}
