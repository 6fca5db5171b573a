"""Let a new model through only when its held-out metrics pass the gates; then it is the champion.

The gates of params.yaml: an absolute limit, the distance to the baseline, and the distance to the champion,
which is scored here on the same held-out rows. A model that fails is kept as an experiment, and the champion
goes on predicting. With gates.approval: human nothing changes until LAMPLIGHTER_APPROVER says who approved.
Not a stage of dvc.yaml, because it changes the registry. Runs in a run's workspace.
"""

import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from tasks import registry, stage, tables
from tasks.errors import PassingError, UserError
from tasks.files import folder_sha256, read_json
from tasks.nights import opened, seal
from tasks.params import LOWER_IS_BETTER, Product
from tasks.paths import Paths
from tasks.store import Store, Stored
from tasks.workspace import ORIGIN, experiments

CHAMPION = "_champion.json"


def promote(product: Product, as_of: date) -> str:
    """Judge the challenger; if it passes, tag it and mirror the champion beside the predictions."""
    commit, experiment = os.environ.get("LAMPLIGHTER_COMMIT"), os.environ.get("LAMPLIGHTER_RUN")
    if not commit or not experiment:
        raise UserError("promote must run as a task of train__<product>: it promotes an experiment, not a folder")
    paths, metric = Paths(product.name), product.gates.metric
    measured = read_json(paths.report("metrics.json"))
    challenger, baseline = measured["model"][metric], measured["baseline"][metric]
    leader = registry.champion(product.name)
    held_out = None
    if leader and leader.commit != commit:
        with tempfile.TemporaryDirectory() as folder:
            theirs = Path(folder) / "onnx"
            _fetch(leader.commit, paths.onnx, theirs)
            if folder_sha256(theirs) == folder_sha256(paths.onnx):
                _mirror(product)
                return f"{leader.version} is this very model and stays the champion"
            held_out = _score(theirs, product)
    failures = gate_failures(product, challenger, baseline, held_out)
    seen = f"{metric}: challenger {challenger:.4f}, baseline {baseline:.4f}, champion " + (
        f"{leader.version} {held_out:.4f}"
        if leader and held_out is not None
        else "none yet"
        if not leader
        else "the same"
    )
    if failures:
        return f"not promoted ({seen}): " + "; ".join(failures)
    approver = os.environ.get("LAMPLIGHTER_APPROVER")
    if product.gates.approval == "human" and not approver:
        return f"passes the gates, and waits for a human's approval ({seen})"
    who = f"{approver} and the gates" if approver else "the gates"
    new = registry.promote(product.name, commit, over=leader, why=f"approved by {who} of params.yaml: {seen}")
    _mirror(product)
    return f"{new.version} is the champion now ({seen})"


def gate_failures(product: Product, challenger: float, baseline: float, champion: float | None) -> list[str]:
    """Which gates the challenger does not pass; `champion` is None where there is none."""
    gates, sign = product.gates, -1 if product.gates.metric in LOWER_IS_BETTER else 1
    checks = [("limit", gates.limit, 0.0), ("max_behind_baseline", baseline, gates.max_behind_baseline)]
    if champion is not None:
        checks.append(("max_behind_champion", champion, gates.max_behind_champion))
    return [
        f"gates.{name} wants {'at most' if sign < 0 else 'at least'} {reference - sign * slack:.4f}"
        for name, reference, slack in checks
        if not sign * (challenger - reference) >= -slack
    ]  # not: NaN passes none


def _score(model: Path, product: Product) -> float:
    """A model's metric on this run's held-out rows."""
    from model.metrics import evaluate_scores
    from model.scoring import Scorer

    scorer = Scorer(model)
    rows, y = tables.split_part(Paths(product.name).splits, "test", product).answerable(scorer.classes)
    scores = tables.scores(scorer, rows)
    measured = evaluate_scores(product.target.task, y, scores, scorer.classes, product.predict.threshold)
    return float(measured[product.gates.metric])


def _fetch(commit: str, path: Path, into: Path) -> None:
    command = [sys.executable, "-m", "dvc", "get", "--quiet", ORIGIN, str(path), "--rev", commit, "--out", str(into)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise PassingError(f"the champion's model could not be fetched: {answer.stderr.strip()}")


def _mirror(product: Product) -> None:
    """The champion as a small object beside the predictions, for readers without git."""

    def follow(standing: Stored | None) -> bytes | None:
        # Asked after `standing` was read: where another promotion comes between, this replacement is refused.
        leader = registry.champion(product.name)
        assert leader is not None
        made = next((each for each in experiments(product.name) if each.commit == leader.commit), None)
        said = {
            "product": product.name,
            "version": leader.version,
            "commit": leader.commit,
            "experiment": made.name if made else None,
        }
        return None if standing and opened(standing) == said else seal(said)

    Store(product.publish.url).update(f"{product.name}/{CHAMPION}", follow)


if __name__ == "__main__":
    stage.main(promote)
