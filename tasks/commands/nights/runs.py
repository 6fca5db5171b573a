"""List the trainings and the nights of products, newest last, in a table of at most 100 columns.

    make runs
    make runs PRODUCT=flight-delays LAST=50
    make runs PRODUCT=flight-delays JSON=1        the records in full

Trainings are on record from promote on, rejected ones too; a run that ended before, or was made by an older version,
is listed by its name. `dvc exp show -A` has every metric of all runs.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import date

from tasks.monitoring.contracts import PAST, NightRecord
from tasks.monitoring.past import nights
from tasks.monitoring.status import ShownTraining
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.reports.contracts import Training
from tasks.reports.kept import all_trainings
from tasks.runs.experiments import experiments

NONE = "–"
MAX_WIDTH = 100
TRAINED = ("as_of", "run", "decision", "value", "lead", "version", "minutes", "metric")
PUBLISHED = ("night", "model", "rows", "quarantined", "mean score", "value", "labelled", "metric")
NUMBERS = {"value", "minutes", "rows", "quarantined", "mean score", "labelled"}
"""Columns that stand to the right."""


def show_runs(products: Sequence[Product], last: int, *, as_json: bool) -> str:
    """Return the last trainings and nights of products, as tables or as JSON.

    Raises UserError where a record is damaged, TransientError where the store or the origin does not answer.
    """
    found = {each.name: (_trainings(each)[-last:], _nights(each)[-last:]) for each in products}
    if as_json:
        content = {
            name: {
                "trainings": [each.to_json() if isinstance(each, Training) else {"run": each} for each in trained],
                "nights": [each.to_json() for each in published],
            }
            for name, (trained, published) in found.items()
        }
        return json.dumps(content, indent=1, ensure_ascii=False)
    return "\n\n".join(f"{name}\n\n{_text(*parts)}" for name, parts in found.items())


def _trainings(product: Product) -> list[Training | str]:
    """Return the trainings on record, and the names of other training runs of the origin, in order of as_of."""
    known = all_trainings(Store(product.publish.url), product.name)
    named = {each.run for each in known}
    others = [each for each in experiments(product.name) if each.kind == "train" and each.name not in named]
    dated: list[tuple[str, str, Training | str]] = [(each.as_of.isoformat(), each.run, each) for each in known]
    dated += [(each.as_of, each.name, each.name) for each in others]
    return [each for _, _, each in sorted(dated, key=lambda entry: entry[:2])]


def _nights(product: Product) -> list[NightRecord]:
    store = Store(product.publish.url)
    years = [int(key.rpartition("/")[2].removesuffix(".json")) for key in store.list(f"{product.name}/{PAST}/")]
    if not years:
        return []
    return list(nights(store, product.name, date(min(years), 1, 1), date(max(years), 12, 31)).values())


def _text(trained: Sequence[Training | str], published: Sequence[NightRecord]) -> str:
    trainings = [_training_row(each) if isinstance(each, Training) else _unknown_row(each) for each in trained]
    return "\n\n".join(
        table(columns, rows) if rows else f"  no {of}"
        for of, columns, rows in (
            ("training on record", TRAINED, trainings),
            ("night on record", PUBLISHED, [_night_row(each) for each in published]),
        )
    )


def _training_row(training: Training) -> tuple[str, ...]:
    lead = ShownTraining.from_json(training.to_json()).lead
    about = NONE
    if lead and lead.value is not None:
        ends = lead.interval_95
        about = f"{lead.value:+.4f}" + (f" ±{(ends[1] - ends[0]) / 2:.4f}" if ends else "")
    return (
        training.as_of.isoformat(),
        training.run.rpartition("-")[2],
        training.verdict.decision,
        _figure(training.value),
        about,
        training.version or NONE,
        NONE if training.seconds is None else f"{training.seconds / 60:.1f}",
        training.metric,
    )


def _unknown_row(run: str) -> tuple[str, ...]:
    *_, year, month, day, _, name = run.split("-")
    return (f"{year}-{month}-{day}", name, "not on record", *[NONE] * (len(TRAINED) - 3))


def _night_row(night: NightRecord) -> tuple[str, ...]:
    truth = night.truth
    return (
        night.as_of.isoformat(),
        night.model_version or "by hand",
        f"{night.published:,}",
        f"{night.quarantined:,}",
        _figure(night.predictions.mean),
        _figure(truth.value if truth else night.estimate),
        f"{truth.labelled:,}" if truth else NONE,
        "withdrawn" if night.withdrawn else truth.metric if truth else _without_truth(night),
    )


def _without_truth(night: NightRecord) -> str:
    return "not measured yet" if night.estimate is None else "an estimate: no label yet"


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain text, at most MAX_WIDTH wide.

    >>> print(table(("night", "rows"), [("2013-06-30", "941"), ("2013-07-01", "1,003")]))
      night        rows
      2013-06-30    941
      2013-07-01  1,003
    """
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    placed = []
    for line in lines:
        cells = zip(columns, line, widths, strict=True)
        padded = (cell.rjust(width) if name in NUMBERS else cell.ljust(width) for name, cell, width in cells)
        text = f"  {'  '.join(padded)}".rstrip()
        placed.append(text if len(text) <= MAX_WIDTH else f"{text[: MAX_WIDTH - 1]}…")
    return "\n".join(placed)
