"""Record what was seen of the night that is published, measure earlier nights whose labels have come, and conclude.

Beside the nights the store holds their past, a record for each: rows, model, what was predicted, how far that and the
rows are from others, what other models say of the same rows, and, when the truth has come, the metric of the gates on
the rows of that night alone. It is measured when labels are due, and again as corrections come, until
`target.late_days` are over. The page of the products shows them.

From measured nights two things follow: where the champion has become worse than in its first nights a training is asked
for, which the DAG starts; where the champion before it was better on the same rows it is assigned again, for the next
night. Reads the night from the store, rows and labels from data/valid. Changes nothing of a night: it may run again, or
never.
"""

from dataclasses import replace
from datetime import date, timedelta
from functools import cache, partial

from pydantic.dataclasses import dataclass

from tasks import stage
from tasks.monitoring.conclusions import conclude
from tasks.monitoring.contracts import PREVIOUS, NightRecord
from tasks.monitoring.messages.outbox import tell
from tasks.monitoring.messages.wording import champion_changed
from tasks.monitoring.nights import PAST_DAYS, measure_past, record_of, withdrawn_record
from tasks.monitoring.past import Past
from tasks.monitoring.shadow import score_beside
from tasks.monitoring.showing import show_nights
from tasks.monitoring.telemetry import tell_night
from tasks.params import Product
from tasks.publication.contracts import Manifest
from tasks.publication.manifests import NightPlace, current_manifest
from tasks.publication.object_store import Store
from tasks.runs.registry import champions, versions
from tasks.runs.shadows import bring, find_contenders, learnt_until, training_days
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.paths import Paths
from tasks.runtime.records import RECORD, Record
from tasks.runtime.results import seconds_of_steps
from tasks.runtime.settings import airflow_page, airflow_run


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Observed(Record):
    """What was seen, and what follows from it."""

    line: str
    """What was seen, for a person to read."""
    retrain: str | None = None
    """Why a training is to begin; None where none is."""
    rollback: str | None = None
    """What became of a rollback that the nights ask for; None where they ask for none."""

    def __str__(self) -> str:
        return self.line


def monitor(product: Product, as_of: date) -> Observed:
    """Record the night of `as_of`, measure the nights that are due, and do what follows; return what was seen.

    Raises TransientError where the store or the origin does not answer; what is kept by then is found by the next try.
    """
    place, paths = NightPlace(store=Store(product.publish.url), product=product.name, as_of=as_of), Paths(product.name)
    manifest = current_manifest(place)
    past_days = PAST_DAYS + product.predict.longest_horizon
    past = Past.of(place.store, product.name, as_of - timedelta(days=past_days), as_of)
    record = None
    if manifest and not manifest.withdrawn:
        record = _observed(product, place, manifest, past, paths)
        past.put([record])
    else:
        withdrawn_record(past, as_of)
    until = cache(partial(learnt_until, product.name))  # most nights are of the same models: the registry is asked once
    measured = measure_past(product, as_of, past, paths, lambda night: until(night.models))
    if record:
        record = conclude(product, past, past.known[as_of])
    past.keep()
    faults.failpoint("monitor: the past is kept")
    show_nights(place.store, product.name, as_of)
    tell_night(product.name, record, measured)
    if record is None:
        return Observed(line="no night is published")
    rollback = _roll_back(product, record)
    line = "; ".join([_about(product, record), *_about_measured(measured), *([rollback] if rollback else [])])
    return Observed(line=line, retrain=record.retrain, rollback=rollback)


def _observed(product: Product, place: NightPlace, manifest: Manifest, past: Past, paths: Paths) -> NightRecord:
    """Return the record of a published night, with what other models say of its rows."""
    window = partial(_training_days, product, manifest)
    record = record_of(product, place, manifest, past, paths, window)
    if record is past.known.get(place.as_of):
        return record
    record = replace(record, seconds=seconds_of_steps(product.name), airflow_run=airflow_run())
    if not product.monitor.shadow or manifest.model.commit is None:
        return record
    shadows, not_scored = [], {}
    try:
        for found in find_contenders(product.name, place.as_of, manifest.model.commit):
            try:
                shadow = score_beside(product, place, manifest, bring(product.name, found), paths)
            except Exception as error:  # the night stands, whatever becomes of those beside it
                not_scored[found.name] = str(error) or repr(error)
            else:
                shadows += [shadow] if shadow else []
    except Exception as error:
        not_scored["registry"] = str(error) or repr(error)
    for name, reason in not_scored.items():
        print(f"{name} has not scored beside the champion: {reason}", flush=True)
    return replace(record, shadows=tuple(shadows), not_scored=not_scored)


def _training_days(product: Product, manifest: Manifest) -> tuple[date, date] | None:
    try:
        return training_days(product.name, manifest.model.version, manifest.model.commit)
    except (UserError, TransientError) as error:
        print(f"rows are not compared with those of the training: {error}", flush=True)
        return None


def _roll_back(product: Product, record: NightRecord) -> str | None:
    """Assign the champion before it again, where the record asks for that; return a line on it."""
    previous = next((each for each in record.shadows if PREVIOUS in each.roles and each.version), None)
    if not (record.rollback and previous and previous.version and record.model_commit and product.monitor.rollback):
        return None
    done, line = versions.roll_back_by_itself(
        product.name,
        previous.version,
        record.model_commit,
        record.as_of,
        product.monitor.rollback.cool_down_days,
        record.rollback,
    )
    faults.failpoint("monitor: the champion before predicts again")
    champions.mirror(product)
    if done:  # the same message at each try, so that one that died before it is told once
        about, page = f"automatic rollback as of {record.as_of}", airflow_page(f"predict__{product.name}")
        tell(product, champion_changed(product, about, line, page))
    return line if done else f"no rollback to {previous.version}: {line}"


def _about(product: Product, record: NightRecord) -> str:
    mean = "none" if record.predictions.mean is None else f"{record.predictions.mean:.4f}"
    change = "" if record.change is None else f", {record.change:.2f} deciles' ranges from the same weekdays before"
    line = f"{record.published:,} predictions by {record.model_version or 'a model by hand'}, mean score {mean}{change}"
    if record.truth is None and record.estimate is not None:
        line += f", estimated {product.gates.metric} {record.estimate:.4f} if its probabilities come true"
    if record.shadows:
        line += f", scored by {', '.join(each.name for each in record.shadows)} too"
    if record.drifting:
        line += f"; look at {', '.join(record.drifting)}: far from the training rows in three of the last five nights"
    return line + (f"; a training is to begin: {record.retrain}" if record.retrain else "")


def _about_measured(measured: list[NightRecord]) -> list[str]:
    lines = []
    for each in measured[-3:]:
        if each.truth:
            value = "not defined" if each.truth.value is None else f"{each.truth.value:.4f}"
            lines.append(f"night of {each.as_of}: {each.truth.metric} {value} on {each.truth.labelled:,} labelled rows")
    if len(measured) > 3 and lines:
        lines[-1] += f" ({len(measured):,} nights measured)"
    return lines


if __name__ == "__main__":
    stage.main(monitor)
