"""Sum up what a night predicted, estimate how well, and measure it where its labels have come.

A night is read part by part, from the machine that scored it or from the store, each verified; held are the scores of
its labelled rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.monitoring.contracts import Predictions, Shadow, SliceTruth, Truth
from tasks.params import HORIZON_COLUMNS, SLICE, Product
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.reading import read_part
from tasks.rows import model_inputs
from tasks.rows.keys import key_digests, key_text
from tasks.rows.labels.horizons import by_horizon, label_names, name_columns
from tasks.rows.labels.known import KnownLabels
from tasks.rows.partitions import Partitions
from tasks.rows.slices.declared import declared_slices, slice_columns
from tasks.runtime.errors import UserError
from tasks.training.gate_metric import gate_metric

DECILES = np.arange(0.1, 0.95, 0.1)
MAX_SHARES = 20
MAX_SCORES = 1_000_000
"""Scores of a night that are kept to find its deciles; of more, every so many."""
N_DRAWS, MAX_DRAWN = 5, 20_000
"""An estimate is the mean over so many draws of labels, of at most so many rows."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The rows of a night whose label is known, and what a model says of them."""

    keys: pd.Series
    """The key of each row, as text, with its horizon where there are several."""
    table: pd.DataFrame
    """The label of each, in a column of the target's name."""
    scores: np.ndarray
    """As `Head.scores_of_night` gives them [n, ...]."""
    classes: tuple[str, ...]
    """The classes that these are of."""

    def metric(self, product: Product, kept: np.ndarray | None = None) -> float | None:
        """Return the metric of the gates on these rows, or on those of them that are kept. Shapes: bool [n]."""
        table, scores = (self.table, self.scores) if kept is None else (self.table[kept], self.scores[kept])
        every = model_inputs.all_classes(table, product, self.classes)
        y = model_inputs.targets(table, product, every)
        if self.classes:
            scores = model_inputs.scores_of_classes(scores, self.classes, every)
        value = gate_metric(product, y, scores)
        return None if value is None else round(value, 6)


def parts_of(place: NightPlace, manifest: Manifest, folder: Path | None = None) -> Iterator[pd.DataFrame]:
    """Yield the parts of a published night, from `folder` where they lie there.

    Raises UserError where one is not as its manifest says.
    """
    for part in manifest.parts:
        yield read_part(place.store, part, folder)


def sum_up(
    product: Product, place: NightPlace, manifest: Manifest, folder: Path | None = None
) -> tuple[Predictions, float | None]:
    """Return what a published night predicted, and an estimate of the metric of the gates.

    A machine that has scored it has its parts in `folder`, and asks the store for none.
    """
    return sum_up_rows(product, parts_of(place, manifest, folder), manifest.rows.published)


def sum_up_rows(product: Product, parts: Iterable[pd.DataFrame], n_rows: int) -> tuple[Predictions, float | None]:
    """Return what the columns of predictions say, of so many rows, and an estimate of the metric of the gates."""
    head, counts, scores, sample = model_inputs.product_head(product), Counter[str](), [np.empty(0)], []
    every, every_drawn = -(-n_rows // MAX_SCORES) or 1, -(-n_rows // MAX_DRAWN) or 1
    for part in parts:
        if head.has_classes:
            counts.update(part["prediction"].astype("str"))
        columns = {name: part[name].to_numpy() for name in part.columns}
        scores.append(head.night_score(columns)[::every])
        sample.append(head.scores_of_night(columns)[0][::every_drawn])
    found, n = np.concatenate(scores).astype(float), sum(counts.values())
    predictions = Predictions(
        mean=round(float(found.mean()), 6) if len(found) else None,
        deciles=tuple(round(float(each), 6) for each in np.quantile(found, DECILES)) if len(found) else (),
        shares={name: round(count / n, 6) for name, count in counts.most_common(MAX_SHARES)},
    )
    return predictions, expected_metric(product, np.concatenate(sample)) if len(found) else None


def expected_metric(product: Product, scores: np.ndarray) -> float | None:
    """Return the metric of the gates that is to be expected where probabilities come true; None without them.

    Labels are drawn from the probabilities. An estimate: where a model is too sure of itself, so is this.
    Shapes: as of `Head.scores_of_night`.

    Source: confidence-based performance estimation, Guillory et al., "Predicting with Confidence on Unseen
    Distributions" (2021); by draws, so that it holds for every metric.
    """
    head, random, values = model_inputs.product_head(product), np.random.default_rng(0), []
    if not head.has_probabilities:
        return None
    for _ in range(N_DRAWS):
        if head.one_class_per_row and scores.ndim == 2:
            y = (scores.cumsum(axis=1) < random.random((len(scores), 1))).sum(axis=1).clip(max=scores.shape[1] - 1)
        else:
            y = (random.random(scores.shape) < scores).astype(np.int64)
        values.append(gate_metric(product, y, scores))
    known = [each for each in values if each is not None]
    return round(float(np.mean(known)), 6) if known else None


def change_of(predictions: Predictions, before: list[Predictions]) -> float | None:
    """Return how far the deciles are from the mean of those before, in units of these' range; None without any.

    >>> now = Predictions(mean=0.5, deciles=(0.2,) * 9, shares={})
    >>> change_of(now, [Predictions(mean=0.5, deciles=(0.1, *[0.1] * 7, 0.3), shares={})])
    0.5
    """
    known = [each.deciles for each in before if each.deciles]
    if not known or not predictions.deciles:
        return None
    usual = np.mean(known, axis=0)
    width = usual[-1] - usual[0]
    return round(float(np.abs(np.array(predictions.deciles) - usual).mean() / width), 4) if width else None


def measure_night(
    product: Product,
    place: NightPlace,
    manifest: Manifest,
    labels: KnownLabels,
    as_of: date,
    shadows: Iterable[Shadow] = (),
    rows: Partitions | None = None,
    learnt: KnownLabels | None = None,
) -> Truth | None:
    """Return how a published night did by the labels that are known; None where none of its rows has one.

    So did the models that scored the same rows; `rows` are those of the scored day, by which slices are found. Rows of
    the labels `learnt` are left out, since a model may have learnt from them.
    Raises UserError where a part is not as it was written.
    """
    found = labelled_rows(product, parts_of(place, manifest), labels, learnt)
    if found is None:
        return None
    # Before, rows of short horizons alone would pass for a better night; each horizon is a slice, and measured at once.
    all_known = manifest.scored_day + timedelta(days=product.labels_wait_days if product.predict.horizons else 0)
    beside = {each.name: _labelled_beside(product, place, each, labels, learnt) for each in shadows}
    return Truth(
        as_of=as_of,
        labelled=len(found.table),
        metric=product.gates.metric,
        value=found.metric(product) if as_of >= all_known else None,
        slices=measure_slices(product, found, rows, manifest.scored_day) if rows and product.slices else {},
        shadows={
            # The same rows, or no comparison.
            name: each.metric(product) if each and len(each.table) == len(found.table) and as_of >= all_known else None
            for name, each in beside.items()
        },
    )


def labelled_rows(
    product: Product, parts: Iterable[pd.DataFrame], labels: KnownLabels, learnt: KnownLabels | None = None
) -> Labelled | None:
    """Return the rows of a night with a label that is known, but for those `learnt`; None where there is none."""
    head, keys, found, truths = model_inputs.product_head(product), [], [], []
    for part in parts:
        names = label_names(part, product)
        place_of = labels.labelled_places(names)
        counts = place_of >= 0 if learnt is None else (place_of >= 0) & (learnt.places(key_digests(names)) < 0)
        labelled = np.flatnonzero(counts)
        keys.append(key_text(part.iloc[labelled], name_columns(product)))
        found.append(part.iloc[labelled])
        truths.append(labels.value.take(place_of[labelled]))
    table = pd.DataFrame({product.target.name: pd.concat(truths, ignore_index=True)}) if truths else pd.DataFrame()
    if not len(table):
        return None
    keys_found = pd.concat(keys, ignore_index=True)
    # Of all parts together: which items lists have differs from part to part.
    columns = pd.concat(found, ignore_index=True)
    scores, classes = head.scores_of_night({str(name): columns[name].to_numpy() for name in columns})
    return Labelled(keys=keys_found, table=table, scores=scores, classes=classes)


def _labelled_beside(
    product: Product, place: NightPlace, shadow: Shadow, labels: KnownLabels, learnt: KnownLabels | None
) -> Labelled | None:
    """Return what another model said of the labelled rows; None where that is gone or damaged, which stops nothing."""
    try:
        return labelled_rows(product, [read_part(place.store, shadow.part)], labels, learnt)
    except UserError as error:
        print(f"{shadow.name} is not measured: {error}", flush=True)
        return None


def measure_slices(product: Product, found: Labelled, rows: Partitions, day: date) -> dict[str, SliceTruth]:
    """Return how the labelled rows of each declared slice did; small ones are counted only."""
    if day not in rows:
        return {}
    names = dict.fromkeys([*product.key, *slice_columns(product)])
    table = by_horizon(rows.read([day], [name for name in names if name not in HORIZON_COLUMNS]), product)
    at = pd.Index(key_text(table, name_columns(product))).get_indexer(pd.Index(found.keys))
    if (at < 0).any():  # the day's rows are others now
        return {}
    measured = {}
    for each in declared_slices(table.iloc[at].reset_index(drop=True), product):
        n = int(each.rows.sum())
        is_measured = each.declaration == SLICE or n >= product.gates.slices.min_rows
        value = found.metric(product, each.rows) if is_measured else None
        measured[each.name] = SliceTruth(labelled=n, value=value)
    return measured
