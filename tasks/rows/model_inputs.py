"""Turn Parquet rows into the arrays that `model` reads, and labels into targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from model.features.fitting import Table
from model.features.kinds import KINDS, guessed_columns
from model.heads import head_of
from model.heads.base import Head
from model.heads.item_lists import renumbered
from model.heads.prediction_rule import ERRORS, HALF, MeasuredThresholds, PredictionRule
from model.target import Target
from tasks.params import MEASURED, Product
from tasks.rows.casting import cast_column
from tasks.rows.keys import key_text
from tasks.rows.labels.horizons import by_horizon
from tasks.rows.partitions import n_rows, read_pieces, read_table
from tasks.runtime.errors import UserError

N_WRITTEN_ROWS = 64
"""Rows of which a language model writes where it is measured."""


def product_head(product: Product) -> Head:
    """Return what the task of a product decides, with the quantiles that it asks for."""
    return head_of(product.target.task).with_levels(product.predict.quantiles)


def inputs(frame: pd.DataFrame, product: Product) -> dict[str, np.ndarray]:
    """Return the inputs of `frame` as the arrays of their kinds' cells; it has each row once for every horizon."""
    return {name: _array(frame[name], KINDS[kind].cells) for name, kind in product.inputs.items()}


def no_rows(product: Product) -> pd.DataFrame:
    """Return the columns of a product's valid rows, with their types, and no row."""
    none = pd.Series(dtype="str")
    return pd.DataFrame({name: cast_column(none, kind)[0] for name, kind in product.kinds.items()})


def classes(frame: pd.DataFrame, product: Product) -> tuple[str, ...]:
    """Return the names of the classes in the labels of `frame`; none where labels are numbers.

    Without labels of a source they are the columns that are guessed.
    """
    head = head_of(product.target.task)
    if not head.has_labels:
        return tuple(guessed_columns(product.columns))
    return head.classes(frame[product.target.name].dropna().unique())


def all_classes(frame: pd.DataFrame, product: Product, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the classes `known` and, after them, the others in the labels of `frame`."""
    return (*known, *(name for name in classes(frame, product) if name not in known))


def targets(frame: pd.DataFrame, product: Product, known: tuple[str, ...]) -> np.ndarray:
    """Return the labels of `frame` as the model takes them: see `Head.label_array`."""
    return head_of(product.target.task).label_array(frame[product.target.name].to_numpy(), known)


@dataclass(frozen=True)
class SplitPart:
    """The inputs of one part of data/splits, piece by piece and as often as is asked: never held whole."""

    file: Path
    product: Product
    keep: np.ndarray | None = None
    """bool [n]: the rows of the file that belong to it; None for all."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return n_rows(self.file) if self.keep is None else int(self.keep.sum())

    @property
    def labels(self) -> pd.DataFrame:
        """Return the label of every row, in a column of the target's name."""
        return self.columns([self.product.target.name])

    @property
    def n_days(self) -> int:
        """Return the number of different dates."""
        return len(np.unique(self.times.astype("datetime64[D]")))

    @property
    def times(self) -> np.ndarray:
        """Return the date of every row. Shapes: datetime64[s] [n]."""
        return self.columns([self.product.time])[self.product.time].to_numpy("datetime64[s]")

    def columns(self, names: list[str]) -> pd.DataFrame:
        """Return columns of the file as they are stored, such as the key."""
        columns = read_table(self.file, names)
        return columns if self.keep is None else columns[self.keep]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the rows piece by piece; at first none, so that an empty part has its columns too."""
        yield inputs(by_horizon(no_rows(self.product), self.product), self.product)
        first = 0
        for piece in read_pieces(self.file):
            in_piece = slice(first, first := first + len(piece))
            chosen = piece if self.keep is None else piece.filter(pa.array(self.keep[in_piece]))
            yield inputs(chosen.select(list(self.product.inputs)).to_pandas(), self.product)

    def with_known_labels(self, known: tuple[str, ...]) -> tuple["SplitPart", np.ndarray]:
        """Return the rows whose label is among the classes `known`, to learn from, and their targets.

        Raises UserError where there is none.
        """
        y = targets(self.labels, self.product, known)
        is_known = head_of(self.product.target.task).is_known(y)
        if not is_known.any():
            raise UserError(
                f"{self.file} must hold a row whose label is one of the training rows, and holds none; "
                f"see products.{self.product.name}.split"
            )
        return self.only(is_known), y[is_known]

    def sample(self, most: int) -> "SplitPart":
        """Return all rows, or of more than `most` the same sample every time."""
        n = len(self)
        if n <= most:
            return self
        chosen = np.zeros(n, bool)
        chosen[np.random.default_rng(0).choice(n, most, replace=False, shuffle=False)] = True
        return self.only(chosen)

    def places_in(self, rows: "SplitPart") -> np.ndarray:
        """Return which of the rows of a larger part these are. Shapes: int64 [n of these rows]."""
        if self.keep is None:
            return np.arange(len(self))
        return np.flatnonzero(self.keep if rows.keep is None else self.keep[rows.keep])

    def only(self, chosen: np.ndarray) -> "SplitPart":
        """Return the chosen ones of these rows. Shapes: bool [n of these rows]."""
        keep = np.ones(len(chosen), bool) if self.keep is None else self.keep.copy()
        keep[keep] = chosen
        return replace(self, keep=keep)

    def read_all(self) -> dict[str, np.ndarray]:
        """Return the pieces as one table, which must fit into memory."""
        pieces = list(self)
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in self.product.inputs}


def split_part(folder: Path, name: str, product: Product) -> SplitPart:
    """Return one part of data/splits, to be read piece by piece."""
    return SplitPart(folder / f"{name}.parquet", product)


def age_days(times: np.ndarray) -> np.ndarray:
    """Return the days from each time to the newest. Shapes: datetime64 [n] -> float64 [n]."""
    return (times.max() - times) / np.timedelta64(1, "D")


def scores_of_classes(found: np.ndarray, answers: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Return scores with a column for each wanted class: 0 for one that is no answer of the model's.

    Shapes: found [n, C] of `answers` -> [n, len(wanted)]; [n] stays as it is, lists [n, k, 2] get other numbers.

    >>> scores_of_classes(np.array([[0.25, 0.75]]), ("a", "b"), ("b", "c")).tolist()
    [[0.75, 0.0]]
    """
    if found.ndim == 1 or answers == wanted:
        return found
    if found.ndim == 3:
        return renumbered(found, answers, wanted)
    by_class = dict(zip(answers, found.T, strict=True))
    return np.stack([by_class.get(name, np.zeros_like(found[:, 0])) for name in wanted], axis=1)


def scores(scorer: Any, rows: SplitPart) -> np.ndarray:
    """Return the scores of a `model.scoring.scorer.Scorer`, as its `score` gives them; of texts, what was measured."""
    if scorer.target.head.writes_texts:
        return measured_texts(scorer.writer, rows)
    if scorer.target.head.answers_spans:
        y, stream = targets(rows.labels, rows.product, ()), scorer.score_stream(rows)
        texts = np.concatenate([table[rows.product.target.text] for table in rows])
        return _measured_answers(y, texts, np.concatenate(list(stream)))
    return np.concatenate(list(scorer.score_stream(rows)))


def label_texts(writer: Any, rows: SplitPart) -> Any:
    """Return the labels of rows, which are texts, as a `model.scoring.generation.Writer` reads them."""
    from model.features.label_texts import LabelTexts

    return LabelTexts.of(writer.tokenizer, targets(rows.labels, rows.product, ()), writer.max_tokens)


def written(writer: Any, encoded: Any, rows: pd.DataFrame, product: Product) -> list[Any]:
    """Return a `model.scoring.generation.Written` for each row, which begins with the key.

    Raises UserError where no text of the model can match the declared pattern.
    """
    try:
        return writer.write(encoded, key_text(rows, list(product.key)).tolist(), product.predict.text)
    except ValueError as error:
        if product.predict.text.pattern is None:
            raise
        raise UserError(f"params.yaml: products.{product.name}.predict.text.pattern {error}") from None


def measured_texts(writer: Any, rows: SplitPart, nats: np.ndarray | None = None, *, writes: bool = True) -> np.ndarray:
    """Return what `model.heads.generate.MEASURED` names of each row; `nats` is what labels cost where that is known.

    A language model foresees the label of every row, and writes for N_WRITTEN_ROWS of them: writing takes longest.
    Without `writes` nothing is written. Shapes: nats float64 [n] -> float32 [n, 4].
    """
    from model.heads.generate import measured

    product, table = rows.product, rows.read_all()
    encoded, labels = writer.features.encode(table), label_texts(writer, rows)
    texts = np.full(len(rows), None, object)
    if writes:
        few = rows.sample(N_WRITTEN_ROWS) if product.model.is_language_model else rows
        few_encoded = encoded if few is rows else writer.features.encode(few.read_all())
        texts[few.places_in(rows)] = [
            each.text for each in written(writer, few_encoded, few.columns(list(product.key)), product)
        ]
    wanted = targets(rows.labels, product, ())
    nats = writer.nats(encoded, labels) if nats is None else nats
    return measured(wanted, nats, labels.n_bytes, texts, table)


def answers(product: Product, table: Table, scores: np.ndarray, rule: PredictionRule) -> np.ndarray:
    """Return what is answered of rows by their scores: of spans a `model.heads.span.Answer` each, else the scores."""
    if not head_of(product.target.task).answers_spans:
        return scores
    from model.heads.span import answers_of

    found = np.empty(len(scores), object)
    found[:] = answers_of(table[product.target.text], scores, rule.thresholds[0])
    return found


def _measured_answers(y: np.ndarray, texts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return what `model.heads.span.MEASURED` names of the likeliest answers, whatever the threshold."""
    from model.heads.span import answers_of, measured

    found = [each.text or "" for each in answers_of(texts, scores, threshold=0.0)]
    return measured(y, found, scores[:, ::-1, 1])


def metric_scores(product: Product, y: np.ndarray, table: Table, scores: np.ndarray) -> np.ndarray:
    """Return scores of rows as metrics take them: of spans what was measured, else as they are."""
    if not head_of(product.target.task).answers_spans:
        return scores
    return _measured_answers(y, table[product.target.text], scores)


def prediction_rule(
    product: Product, measured: MeasuredThresholds | None, own: tuple[str, ...], wanted: tuple[str, ...] | None = None
) -> PredictionRule:
    """Return how scores become predictions: by declared costs, and by the threshold declared or `measured`.

    `own` are the model's classes, `wanted` those that the scores have a column of; by default the same.
    """
    declared, wanted, head = product.predict, own if wanted is None else wanted, head_of(product.target.task)
    thresholds: tuple[float, ...] = (HALF,)
    if declared.threshold != MEASURED:
        thresholds = (float(declared.threshold),)
    elif measured is not None and head.has_classes and head.score_shape(len(own)):
        of_label = dict(zip(own, measured.thresholds, strict=True))
        thresholds = tuple(of_label.get(name, HALF) for name in wanted)
    elif measured is not None:
        thresholds = measured.thresholds
    costs = _costs(product, wanted)
    is_cheapest, levels = bool(costs) and not head.has_threshold, product.predict.quantiles
    return PredictionRule(thresholds=thresholds, costs=costs, least_cost=is_cheapest, levels=levels)


def _costs(product: Product, classes: tuple[str, ...]) -> tuple[tuple[float, ...], ...]:
    """Return the declared costs by true and predicted class; () where none are."""
    costs = product.predict.costs
    if costs is None:
        return ()
    if head_of(product.target.task).has_threshold:
        false_positive, false_negative = (float(costs[error]) for error in ERRORS)  # type: ignore[arg-type]
        return (0.0, false_positive), (false_negative, 0.0)
    rows = {name: row for name, row in costs.items() if isinstance(row, dict)}
    return tuple(tuple(rows.get(one, {}).get(other, float(one != other)) for other in classes) for one in classes)


def check_costs(product: Product, classes: tuple[str, ...]) -> None:
    """Raise UserError where costs are declared of classes that no row has."""
    costs = product.predict.costs
    if costs is None or head_of(product.target.task).has_threshold:
        return
    named = [*costs, *(name for row in costs.values() if isinstance(row, dict) for name in row)]
    unknown = [name for name in dict.fromkeys(named) if name not in classes]
    if unknown:
        raise UserError(
            f"params.yaml: products.{product.name}.predict.costs must name classes of the labels, and no row is "
            f"{', '.join(map(repr, unknown))}; use one of {', '.join(classes)}"
        )


def schema_mismatch(kinds: dict[str, str], target: Target, product: Product) -> str:
    """Return how a model's columns or target differ from the product's declaration; empty where they fit."""
    if unread := kinds.items() - product.inputs.items():
        return "reads " + ", ".join(f"{name} as {kind}" for name, kind in sorted(unread))
    if target.task != product.target.task or target.column not in (None, product.target.name):
        return f"answers {target.column or 'a target'} as {target.task}"
    if target.head.writes_texts and as_declared(target, product) != target:
        return f"answers texts of {target.max_tokens} subwords at most, by predict.text.max_tokens"
    if target.head.answers_spans and as_declared(target, product) != target:
        return f"answers from {target.text}, by target.text"
    if target.levels != product.predict.quantiles:
        return f"answers {f'the quantiles {list(target.levels)}' if target.levels else 'no quantiles'}"
    if target.horizons != product.predict.horizons:
        return f"answers {f'for {list(target.horizons)} days ahead' if target.horizons else 'for one day'}"
    if as_declared(target, product) != target:
        return f"answers lists of {target.top} by target.history {target.history} and target.exclude {target.exclude}"
    return ""


def as_declared(target: Target, product: Product) -> Target:
    """Return the target with what is declared of lists, texts, spans or quantiles, where it answers these."""
    if target.head.writes_texts:
        return replace(target, max_tokens=product.predict.text.max_tokens)
    if target.head.answers_spans:
        return replace(target, text=product.target.text)
    if not target.head.answers_lists:
        return replace(target, levels=product.predict.quantiles, horizons=product.predict.horizons)
    declared = product.target
    return replace(target, top=product.predict.top, history=declared.history, exclude=declared.exclude)


def is_new(table: dict[str, np.ndarray], product: Product) -> np.ndarray:
    """Return which rows have no history. Shapes: -> bool [n]."""
    n_rows = len(next(iter(table.values())))
    cells = [pd.isna(table[name]) for name in product.target.history]
    return np.logical_and.reduce([np.ones(n_rows, bool), *cells])


def _array(values: pd.Series, cells: str) -> np.ndarray:
    """Return a valid column as an array of its type of cells; texts as object, str or None."""
    if cells != "str":
        return values.to_numpy(cells)
    # By way of Arrow, whose texts pandas holds: ten times as fast as cell by cell, and None where there is none.
    return pa.array(values, from_pandas=True).to_numpy(zero_copy_only=False)
