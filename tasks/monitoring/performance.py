"""Sum up what a night predicted, and measure it where its labels have come.

A night is read part by part from the store, each verified; held are the scores of its labelled rows.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import date

import numpy as np
import pandas as pd

from model.heads import head_of
from tasks.monitoring.contracts import Predictions, Truth
from tasks.params import Product
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace
from tasks.publication.reading import read_part
from tasks.rows import model_inputs
from tasks.rows.keys import key_digests, key_text
from tasks.rows.splitting import KnownLabels
from tasks.training.gate_metric import gate_metric

DECILES = np.arange(0.1, 0.95, 0.1)
MAX_SHARES = 20
MAX_SCORES = 1_000_000
"""Scores of a night that are kept to find its deciles; of more, every so many."""


def parts_of(place: NightPlace, manifest: Manifest) -> Iterator[pd.DataFrame]:
    """Yield the parts of a published night. Raises UserError where one is not as its manifest says."""
    for part in manifest.parts:
        yield read_part(place.store, part)


def sum_up(product: Product, place: NightPlace, manifest: Manifest) -> Predictions:
    """Return what a published night predicted."""
    head, counts, scores = head_of(product.target.task), Counter[str](), [np.empty(0)]
    every = -(-manifest.rows.published // MAX_SCORES) or 1
    for part in parts_of(place, manifest):
        if head.has_classes:
            counts.update(part["prediction"].astype("str"))
        scores.append(head.night_score({name: part[name].to_numpy() for name in part.columns})[::every])
    found, n = np.concatenate(scores).astype(float), sum(counts.values())
    return Predictions(
        mean=round(float(found.mean()), 6) if len(found) else None,
        deciles=tuple(round(float(each), 6) for each in np.quantile(found, DECILES)) if len(found) else (),
        shares={name: round(count / n, 6) for name, count in counts.most_common(MAX_SHARES)},
    )


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
    product: Product, place: NightPlace, manifest: Manifest, labels: KnownLabels, as_of: date
) -> Truth | None:
    """Return how a published night did by the labels that are known; None where none of its rows has one."""
    head = head_of(product.target.task)
    found, truths, classes = [], [], tuple[str, ...]()
    for part in parts_of(place, manifest):
        place_of = labels.places(key_digests(key_text(part, list(product.key))))
        labelled = np.flatnonzero(place_of >= 0)
        labelled = labelled[labels.value.take(place_of[labelled]).notna().to_numpy()]  # a label may be withdrawn
        scores, classes = head.scores_of_night({name: part[name].to_numpy() for name in part.columns})
        found.append(scores[labelled])
        truths.append(labels.value.take(place_of[labelled]))
    table = pd.DataFrame({product.target.name: pd.concat(truths, ignore_index=True)}) if truths else pd.DataFrame()
    if not len(table):
        return None
    every = model_inputs.all_classes(table, product, classes)
    y = model_inputs.targets(table, product, every)
    scores = model_inputs.scores_of_classes(np.concatenate(found), classes, every) if classes else np.concatenate(found)
    value = gate_metric(product, y, scores)
    metric = product.gates.metric
    return Truth(as_of=as_of, labelled=len(y), metric=metric, value=None if value is None else round(value, 6))
