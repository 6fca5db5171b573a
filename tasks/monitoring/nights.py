"""Add a night to a product's past, and measure the nights whose labels have come."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial

import pandas as pd

from model.heads import head_of
from tasks.monitoring.contracts import BrokenRule, NightRecord, Predictions
from tasks.monitoring.distances import Window, columns_of_training, distances
from tasks.monitoring.past import Past
from tasks.monitoring.performance import change_of, measure_night, sum_up, sum_up_rows
from tasks.params import Product
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.scoring import load_scorer, prediction_columns, prediction_rule
from tasks.quality.ledger import Ledger
from tasks.rows import model_inputs
from tasks.rows.labels.horizons import by_horizon
from tasks.rows.labels.known import known_labels
from tasks.rows.partitions import Partitions
from tasks.runtime.files import folder_sha256
from tasks.runtime.paths import Paths

WEEKS_COMPARED = 4
RULES_KEPT = 20
PAST_DAYS = 365
"""How far back nights are read."""
LOOK_AGAIN_DAYS = (1, 3, 7, 14)
"""A night is measured when its labels are due, then after so many days, and last when no more are taken."""


def record_of(
    product: Product, place: NightPlace, manifest: Manifest, past: Past, paths: Paths, window: Window
) -> NightRecord:
    """Return what is seen of a published night: the record that is known, or a new one that is not kept yet.

    `window` returns the training days of its model. Raises UserError where a part is damaged.
    """
    known, as_of = past.known.get(place.as_of), place.as_of
    if known and known.run == manifest.run and not known.withdrawn:
        return known
    predictions, estimate = sum_up(product, place, manifest, paths.predictions)
    before = past.nights(as_of - timedelta(weeks=WEEKS_COMPARED), as_of - timedelta(days=1))
    same_weekday = [each.predictions for day, each in before.items() if (as_of - day).days % 7 == 0]
    rows = Partitions(paths.valid / "rows")
    answer = partial(answers_here, product, manifest, paths)
    training = columns_of_training(product, place.store, rows, manifest.model.sha256, window, answer)
    answered = [training.predictions] if training and training.predictions else []
    return NightRecord(
        as_of=as_of,
        scored_day=manifest.scored_day,
        run=manifest.run,
        rows_in=manifest.rows.rows_in,
        quarantined=manifest.rows.quarantined,
        published=manifest.rows.published,
        model_version=manifest.model.version,
        model_commit=manifest.model.commit,
        predictions=predictions,
        estimate=estimate,
        change=change_of(predictions, same_weekday),
        change_from_training=change_of(predictions, answered),
        columns=distances(product, rows, manifest.scored_day, training),
        broken=broken_rules(paths, manifest),
    )


def broken_rules(paths: Paths, manifest: Manifest) -> dict[str, BrokenRule]:
    """Return why rows of a night's day are in quarantine, by what validate found of that day."""
    if not manifest.rows.quarantined:
        return {}
    try:
        day = Ledger.read(paths.valid).days["rows"].get(manifest.scored_day.isoformat())
    except (OSError, ValueError) as error:  # the night stands, and its record says how many
        print(f"why rows are in quarantine is not on record: {error!r}", flush=True)
        return {}
    most = sorted(day.reasons, key=lambda rule: (-day.reasons[rule], rule))[:RULES_KEPT] if day else []
    return {rule: BrokenRule(rows=day.reasons[rule], first=day.examples[rule] + 1) for rule in most if day}


def answers_here(product: Product, manifest: Manifest, paths: Paths, rows: pd.DataFrame) -> Predictions | None:
    """Return what the model of a night says of other rows; None where this disk has another one, or it cannot say.

    Texts are not written for it: twenty thousand of them would take longer than the night.
    """
    is_here = paths.onnx.exists() and folder_sha256(paths.onnx) == manifest.model.sha256
    if not is_here or head_of(product.target.task).writes_texts:
        return None
    try:
        scorer = load_scorer(product)
        table = model_inputs.inputs(by_horizon(rows, product), product)
        rule = prediction_rule(product, scorer.classes)
        scores = model_inputs.answers(product, table, scorer.score(table), rule)
        answers = pd.DataFrame(dict(prediction_columns(product, scores, scorer.classes)))
    except Exception as error:  # the night stands, and is compared with other nights
        print(f"predictions are not compared with those of the training rows: {error!r}", flush=True)
        return None
    return sum_up_rows(product, [answers], len(answers))[0]


def withdrawn_record(past: Past, as_of: date) -> None:
    """Mark the record of a night that a person has withdrawn, if there is one."""
    if as_of in past.known:
        past.put([replace(past.known[as_of], withdrawn=True)])


def measure_past(
    product: Product, as_of: date, past: Past, paths: Paths, learnt_until: Callable[[NightRecord], date | None]
) -> list[NightRecord]:
    """Measure the nights whose labels are due at `as_of`, by the valid labels below `paths`; return those measured.

    They are put into the past, which is not kept yet. Rows whose label was known by the date up to which a model that
    scored them has learnt are left out: it may have learnt from them.
    """
    target = product.target
    waited = product.labels_wait_days + target.late_days + product.predict.lead_days
    # Where nights were stopped since, or none ran, what was due meanwhile is due now.
    looked_on = max((day for day in past.known if day < as_of), default=as_of)
    known = past.nights(looked_on - timedelta(days=waited + 1), as_of)
    due = [each for each in known.values() if is_due(each, product, as_of)]
    if not due:
        return []
    files = Partitions(paths.valid / "labels")
    labels = known_labels(files, files.days(as_of, min(each.scored_day for each in due)), product)
    rows, measured = Partitions(paths.valid / "rows"), []
    for record in due:
        place = NightPlace(store=past.store, product=product.name, as_of=record.as_of)
        manifest = current_manifest(place)
        if manifest and manifest.withdrawn:
            withdrawn_record(past, record.as_of)
        elif manifest and manifest.run == record.run:
            until = learnt_until(record)
            days = files.days(until, record.scored_day) if until else []
            learnt = known_labels(files, days, product) if days else None
            truth = measure_night(product, place, manifest, labels, as_of, record.shadows, rows, learnt)
            if truth:
                measured.append(replace(record, truth=truth))
    past.put(measured)
    return measured


def is_due(record: NightRecord, product: Product, as_of: date) -> bool:
    """Return whether a night is to be measured at a date: its labels have come, or others since it was measured."""
    own, horizons = record.scored_day + timedelta(days=product.target.delay_days), product.predict.horizons or (0,)
    if record.withdrawn:
        return False
    if record.truth is None:
        return as_of >= own + timedelta(days=horizons[0])
    after = (0, *LOOK_AGAIN_DAYS, product.target.late_days)
    looks = (own + timedelta(days=ahead + days) for ahead in horizons for days in after)
    return any(record.truth.as_of < look <= as_of for look in looks)
