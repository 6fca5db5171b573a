"""Put a training on record and make its page, when promote has decided; or make the page of files that no run made.

A report decides nothing: where it cannot be made the run goes on, and says why.
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from tasks import STAGES
from tasks.monitoring.past import nights
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.reports.changes import Change, champion_settings, changes
from tasks.reports.contracts import Training
from tasks.reports.facts import gather, trained
from tasks.reports.kept import keep_page, keep_training, trainings
from tasks.reports.page import render
from tasks.runs.experiments import Run
from tasks.runs.gates.figures import figures_of
from tasks.runs.gates.verdict import Verdict
from tasks.runs.registry.tags import Champion, registry_of
from tasks.runtime import faults
from tasks.runtime.paths import Paths
from tasks.runtime.results import read_result, result_file
from tasks.runtime.settings import airflow_run

DAYS_SHOWN = 60
BY_HAND = "none"


def report_training(product: Product, as_of: date, run: Run, verdict: Verdict, champion: Champion | None) -> str:
    """Put the training of this workspace on record, with its page; return a line about both.

    `champion` is what it was compared with. Never raises: what fails is said in the line.
    """
    store = Store(product.publish.url)
    try:
        training = keep_training(store, product.name, _record(product, as_of, run, verdict, champion))
        faults.failpoint("report: the training is on record")
        page = render_run(product, as_of, store, training, champion)
        address = keep_page(store, product.name, training, page)
        faults.failpoint("report: the page is kept")
        keep_training(store, product.name, replace(training, report=address))
    except Exception as error:
        return f"the report could not be made, and nothing depends on it: {type(error).__name__}: {error}"
    return f"report: {address} (make report PRODUCT={product.name} AS_OF={as_of})"


def _record(product: Product, as_of: date, run: Run, verdict: Verdict, champion: Champion | None) -> Training:
    assert run.commit is not None
    with registry_of(product.name) as registry:
        version = registry.version_at(run.commit)
    compared = champion.version if champion and champion.commit != run.commit else None
    return trained(
        product,
        Paths(product.name),
        as_of,
        run.name,
        run.revision,
        verdict,
        version=version,
        champion=compared,
        seconds=_seconds(product.name),
        decided_at=datetime.now(UTC),
        airflow_run=airflow_run(),
    )


def _seconds(product: str) -> float | None:
    """Return what the stages took that this machine has done; None where it has done none."""
    files = [result_file(product, stage) for stage in STAGES[:-1]]
    found = [result.seconds for file in files if file and (result := read_result(file)) and result.seconds is not None]
    return round(sum(found), 1) if found else None


def render_run(product: Product, as_of: date, store: Store, training: Training, champion: Champion | None) -> str:
    """Return the page of the run in this workspace."""
    recorded = nights(store, product.name, as_of - timedelta(days=DAYS_SHOWN), as_of).values()
    found = tuple(each for each in recorded if not each.withdrawn)
    differing: tuple[Change, ...] = ()
    if champion and training.champion == champion.version and champion.as_of:
        day = date.fromisoformat(champion.as_of)
        known = [each for each in trainings(store, product.name, day, day) if each.version == champion.version]
        before = champion_settings(champion, product.name)
        differing = changes(champion, before, next(iter(known), None), product, training)
    facts = gather(product, Paths(product.name), training, found, differing, is_judged=True)
    return render(facts)


def render_here(product: Product, as_of: date, revision: str) -> str:
    """Return the page of the training whose files lie below data/, which nobody has judged."""
    paths = Paths(product.name)
    verdict = Verdict(decision="needs approval", line="", figures=figures_of(product))
    training = trained(product, paths, as_of, BY_HAND, revision, verdict)
    return render(gather(product, paths, training, (), (), is_judged=False))
