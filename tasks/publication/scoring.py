"""Score the rows of a night with the exported model, shard by shard, without ever holding a night in memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray

from model.compute import processor
from model.heads import head_of
from model.heads.next_item import IS_NEW
from model.heads.prediction_rule import HALF, MeasuredThresholds, PredictionRule
from model.target import read_target
from tasks.params import Product
from tasks.publication.contracts import NightInputs, Part, RecordedEngine, RecordedText
from tasks.publication.night import part_name
from tasks.rows import model_inputs
from tasks.rows.labels.horizons import by_horizon, label_columns
from tasks.rows.partitions import Partitions, table_writer
from tasks.runtime.errors import UserError
from tasks.runtime.files import file_sha256, folder_sha256
from tasks.runtime.fingerprints import code_sha256
from tasks.runtime.paths import Paths

if TYPE_CHECKING:
    from model.scoring.scorer import Scorer

CODE = (
    "tasks/predict.py",
    "tasks/publication/contracts.py",
    "tasks/publication/night.py",
    "tasks/publication/scoring.py",
    "tasks/rows/casting.py",
    "tasks/rows/keys.py",
    "tasks/rows/labels/horizons.py",
    "tasks/rows/model_inputs.py",
    "tasks/rows/partitions.py",
    "tasks/rows/stored_days.py",
    "tasks/runtime/files.py",
    "tasks/runtime/fingerprints.py",
    "tasks/runtime/records.py",
    "model/compute",
    "model/features",
    "model/heads",
    "model/network",
    "model/scoring/automaton.py",
    "model/scoring/constraint.py",
    "model/scoring/engines.py",
    "model/scoring/generation.py",
    "model/scoring/reasons.py",
    "model/scoring/scorer.py",
    "model/scoring/surprise.py",
    "model/scoring/trees.py",
    "model/settings.py",
    "model/target.py",
)
"""All code that decides the bytes of a night."""


def load_scorer(product: Product) -> "Scorer":
    """Return the product's exported model, ready to score.

    Raises UserError where it is absent, its engine cannot run here, or it reads and answers other than is declared.
    """
    from model.scoring.scorer import Scorer

    folder = Paths(product.name).onnx
    if not (folder / "network.onnx").exists():
        raise UserError(f"{folder} must hold an exported model, and does not; run dvc repro export@{product.name}")
    try:
        scorer = Scorer(folder)
    except ValueError as error:
        raise UserError(f"products.{product.name}: {error}") from None
    if mismatch := model_inputs.schema_mismatch(scorer.features.kinds, read_target(folder), product):
        raise UserError(
            f"params.yaml: products.{product.name} must declare what the model reads and answers, and the model "
            f"{mismatch}; let train__{product.name} promote a model of what is declared now, or put that back"
        )
    return scorer


def night_inputs(product: Product, as_of: date, engine: dict[str, str]) -> NightInputs:
    """Return all that decides the bytes of a night; `engine` is the scorer's description of what computes."""
    rows, day = _valid_rows(product), product.scored_day(as_of)
    classes = read_target(Paths(product.name).onnx).classes
    rule = prediction_rule(product, classes)
    return NightInputs(
        product=product.name,
        as_of=as_of,
        scored_day=day,
        shards=n_shards(product, as_of),
        threshold=_recorded(rule, classes),
        costs=product.predict.costs if rule.least_cost else None,
        explain=product.predict.explain,
        horizon_days=product.predict.horizons,
        text=RecordedText(**asdict(product.predict.text)) if head_of(product.target.task).writes_texts else None,
        rows_sha256=rows.sha256(day) if day in rows else None,
        model_sha256=folder_sha256(Paths(product.name).onnx),
        engine=RecordedEngine(**engine, processor=processor.name()),
        code_sha256=code_sha256(*CODE),
        environment_sha256=file_sha256(Path("constraints.txt")),
    )


def prediction_rule(product: Product, classes: tuple[str, ...]) -> PredictionRule:
    """Return how a night's scores become predictions: by what is declared now, and what was measured for the model."""
    return model_inputs.prediction_rule(product, MeasuredThresholds.load(Paths(product.name).onnx), classes)


def _recorded(rule: PredictionRule, classes: tuple[str, ...]) -> float | dict[str, float]:
    """Return the threshold of all labels, or that of each by name."""
    if len(rule.thresholds) == 1:
        return rule.thresholds[0]
    return dict(zip(classes, rule.thresholds, strict=True))


def shard_rows(product: Product, as_of: date, shard: int) -> Iterator[pd.DataFrame]:
    """Yield the rows of one shard piece by piece; the first piece is empty, so that an empty part has its columns."""
    yield model_inputs.no_rows(product)
    stored, day = _valid_rows(product), product.scored_day(as_of)
    if day in stored:  # a day without rows is a night without predictions, not a failure
        n, shards = stored.n_rows(day), n_shards(product, as_of)
        for piece in stored.pieces(day, range(n * shard // shards, n * (shard + 1) // shards)):
            yield piece.to_pandas()


def score_shard(product: Product, as_of: date, scorer: "Scorer", shard: int, folder: Path) -> Part:
    """Write one part file and return its description. Raises UserError for a score that is not finite."""
    names = list(dict.fromkeys([*product.key, product.time, *label_columns(product)]))
    file, n_scored, rule = folder / part_name(shard), 0, prediction_rule(product, scorer.classes)
    schema: pa.Schema | None = None
    with table_writer(file) as write:
        for rows, table, scores in score_pieces(product, scorer, shard_rows(product, as_of, shard), rule):
            answers = prediction_columns(product, scores, scorer.classes, rule)
            if head_of(product.target.task).answers_lists:
                answers[IS_NEW] = model_inputs.is_new(table, product)
            beside = reason_columns(product, scorer, table, scores) | cell_columns(product, scorer, table, scores)
            written = rows[names].assign(**answers, **beside)
            if head_of(product.target.task).list_columns:  # what pandas notes of types of lists it cannot read again
                written = pa.Table.from_pandas(written, schema=schema, preserve_index=False).replace_schema_metadata()
                schema = written.schema
            write(written)
            n_scored += len(scores)
    return Part(name=file.name, rows=n_scored, bytes=file.stat().st_size, sha256=file_sha256(file))


def score_pieces(
    product: Product, scorer: "Scorer", pieces: Iterable[pd.DataFrame], rule: PredictionRule
) -> Iterator[tuple[pd.DataFrame, dict[str, np.ndarray], np.ndarray]]:
    """Yield the rows of each piece, each for every horizon, what a model reads of them, and their scores.

    Of texts, these are what was written, of spans what was answered by the model's own rule.

    Raises UserError for a score that is not finite.
    """
    unscored: deque[tuple[pd.DataFrame, dict[str, np.ndarray]]] = deque()

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for stored in pieces:
            rows = by_horizon(stored, product)
            table = model_inputs.inputs(rows, product)
            unscored.append((rows, table))
            yield table

    stream = _texts(product, scorer, inputs(), unscored) if scorer.target.head.writes_texts else None
    for scores in stream or scorer.score_stream(inputs()):
        # The scores of the pieces come out in the order in which their rows went in.
        rows, table = unscored.popleft()
        numbers = np.array([each.mean_log_probability for each in scores]) if stream else scores
        if not np.isfinite(numbers).all():
            raise UserError(
                f"products.{product.name}: scores must be finite, and {(~np.isfinite(numbers)).sum():,} of "
                f"{numbers.size:,} are not; export with model.engine: onnxruntime-fp32 or train again"
            )
        yield rows, table, scores if stream else model_inputs.answers(product, table, scores, rule)


def _texts(
    product: Product,
    scorer: "Scorer",
    tables: Iterable[dict[str, np.ndarray]],
    rows: deque[tuple[pd.DataFrame, dict[str, np.ndarray]]],
) -> Iterator[np.ndarray]:
    """Yield what is written for the rows of each table. Shapes: object [n]."""
    for table in tables:
        texts = model_inputs.written(scorer.writer, scorer.features.encode(table), rows[-1][0], product)
        found = np.empty(len(texts), object)
        found[:] = texts
        yield found


def reason_columns(
    product: Product, scorer: "Scorer", table: dict[str, np.ndarray], scores: np.ndarray
) -> dict[str, ExtensionArray]:
    """Return the columns with each row's reasons; none where `predict.explain` asks for none."""
    if not product.predict.explain:
        return {}
    from model.scoring.reasons import reasons

    are_shares = head_of(product.target.task).has_probabilities
    found = reasons(scorer, table, scores, product.predict.explain, are_shares=are_shares)
    return {name: pd.array(texts, dtype="str") for name, texts in found.items()}


def cell_columns(
    product: Product, scorer: "Scorer", table: dict[str, np.ndarray], scores: np.ndarray
) -> dict[str, np.ndarray | ExtensionArray]:
    """Return the columns about each row's most surprising cell; none where rows have labels."""
    if head_of(product.target.task).has_labels:
        return {}
    from model.scoring.surprise import surprise_columns

    return _stored(surprise_columns(scorer, table, scores))


def n_shards(product: Product, as_of: date, paths: Paths | None = None) -> int:
    """Return the number of part files of the night: what the scored day's valid rows, below `paths`, ask for."""
    stored, day = _valid_rows(product, paths), product.scored_day(as_of)
    return product.predict.n_shards(stored.n_rows(day) if day in stored else 0)


def _valid_rows(product: Product, paths: Paths | None = None) -> Partitions:
    return Partitions((paths or Paths(product.name)).valid / "rows")


def prediction_columns(
    product: Product, scores: np.ndarray, classes: tuple[str, ...], rule: float | PredictionRule = HALF
) -> dict[str, np.ndarray | ExtensionArray]:
    """Return the columns of a prediction, as the task has them."""
    head = model_inputs.product_head(product)
    return _stored(head.night_columns(scores, classes, rule), head.list_columns)


def _stored(
    columns: Mapping[str, np.ndarray], lists: Mapping[str, str] | None = None
) -> dict[str, np.ndarray | ExtensionArray]:
    """Return columns as Parquet has them; `lists` has the type of what the cells of a column of lists hold."""
    return {name: _as_stored(cells, (lists or {}).get(name)) for name, cells in columns.items()}


def _as_stored(cells: np.ndarray, of_lists: str | None) -> np.ndarray | ExtensionArray:
    if of_lists is not None:
        held = pa.string() if of_lists == "str" else pa.type_for_alias(of_lists)
        return pd.array(pa.array(cells, pa.list_(held)), dtype=pd.ArrowDtype(pa.list_(held)))
    return pd.array(cells, dtype="str") if cells.dtype == object else cells
