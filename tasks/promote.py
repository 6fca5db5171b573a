"""Let a new model through only when its held-out metrics pass the gates; then it is the champion.

The gates of params.yaml: an absolute limit, the distance to the baseline, and the distance to the champion,
which is scored on the same held-out rows. A model that fails is kept as an experiment, and the champion
goes on predicting. With gates.approval: human nothing changes until the run names who approved (`--run`).
Not a stage of dvc.yaml, because it changes the registry. Works in a run's workspace only.
"""

from datetime import date
from functools import partial

from tasks import stage
from tasks.monitoring.showing import show_trainings
from tasks.monitoring.telemetry import tell_gates
from tasks.params import Product
from tasks.publication.object_store import Store
from tasks.reports.kept import shown_trainings
from tasks.reports.making import report_training
from tasks.runs.experiments import Run
from tasks.runs.gates.comparison import compare
from tasks.runs.gates.figures import Figures, figures_of
from tasks.runs.gates.verdict import Verdict, judge
from tasks.runs.registry import champions
from tasks.runtime.errors import UserError


def promote(product: Product, as_of: date, run: Run | None = None) -> Verdict:
    """Judge the challenger; if it passes, tag it and mirror the champion beside the predictions.

    Raises UserError outside of a run and where a person has approved other figures, TransientError where another model
    has become the champion meanwhile.
    """
    if run is None or run.commit is None:
        raise UserError("promote must run as a task of train__<product>: it promotes an experiment, not a folder")
    # Compare with the newest champion trained up to as_of: a later one was trained on these held-out rows.
    admission = champions.admission(product.name, run.commit, as_of)
    verdict = decide(product, as_of, run, admission)
    print(report_training(product, as_of, run, verdict, admission.of_its_time), flush=True)
    store = Store(product.publish.url)
    show_trainings(store, product.name, partial(shown_trainings, store, product.name))
    tell_gates(product.name, verdict.gates)
    return verdict


def decide(product: Product, as_of: date, run: Run, admission: champions.Admission) -> Verdict:
    """Judge the challenger of a run as `promote` does."""
    assert run.commit is not None
    champion, of_its_time = admission.champion, admission.of_its_time
    if admission.exclusion:
        line = f"not promoted: {admission.exclusion}"
        return Verdict(decision="withdrawn", line=line, figures=figures_of(product))
    # The very same bytes need no comparison: they fill the gap where those of the champion are lost.
    comparison = None if admission.is_of_its_time else compare(product, as_of, run.commit, of_its_time)
    if comparison is None:
        assert of_its_time is not None
        champions.mirror(product)
        line = f"{of_its_time.version} is this very model and stays the champion"
        return Verdict(decision="champion already", line=line, figures=figures_of(product), version=of_its_time.version)
    figures = figures_of(product, comparison)
    gates = judge(product, comparison, figures)
    verdict = partial(Verdict, gates=gates, figures=figures)
    if failures := [str(gate) for gate in gates if not gate.passed]:
        return verdict(decision="rejected", line=f"not promoted ({comparison}): " + "; ".join(failures))
    if admission.hold:
        line = f"passes the gates, and is not promoted: {admission.hold} ({comparison})"
        return verdict(decision="held", line=line)
    if product.gates.approval == "human" and not run.approver:
        return verdict(
            decision="needs approval", line=f"passes the gates, and waits for a human's approval ({comparison})"
        )
    _check_approved(run, figures)
    judges = f"{run.approver} and the gates" if run.approver else "the gates"
    reason = f"approved by {judges} of params.yaml: {comparison}"
    new = champions.promote(product.name, run.commit, as_of, champion, reason)
    champions.mirror(product)
    if champion and champion.trained_after(as_of):
        line = f"{new.version} predicts nights up to {as_of}; {champion.version} knows later data and goes on"
        return verdict(decision="promoted", line=f"{line} ({comparison})", version=new.version)
    return verdict(decision="promoted", line=f"{new.version} is the champion now ({comparison})", version=new.version)


def _check_approved(run: Run, figures: Figures) -> None:
    """Raise UserError where a person has approved other figures than those of this run."""
    if run.approver and run.approved not in (None, figures.called):
        raise UserError(
            f"{run.name}: the figures that {run.approver} approves must be those of this run, {figures.called}, and "
            f"are {run.approved}: something was measured anew since they were shown. Look at the verdict in the log of "
            f"evaluate_gates, then clear approve and write {figures.called} into its field, or trigger the run anew"
        )


if __name__ == "__main__":
    stage.main_of_run(promote)
