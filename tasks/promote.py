"""Let a new model through only when its held-out metrics pass the gates; then it is the champion.

The gates of params.yaml: an absolute limit, the distance to the baseline, and the distance to the champion,
which is scored here on the same held-out rows. A model that fails is kept as an experiment, and the champion
goes on predicting. With gates.approval: human nothing changes until LAMPLIGHTER_APPROVER says who approved.
Not a stage of dvc.yaml, because it changes the registry. Runs in a run's workspace.
"""

import math
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from tasks import stage
from tasks.params import LOWER_IS_BETTER, Product
from tasks.rows import model_inputs
from tasks.runs import registry
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import folder_sha256, read_json
from tasks.runtime.git import redact_credentials
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings
from tasks.training.gate_metric import gate_metric


def promote(product: Product, as_of: date) -> str:
    """Judge the challenger; if it passes, tag it and mirror the champion beside the predictions."""
    commit, experiment = os.environ.get("LAMPLIGHTER_COMMIT"), os.environ.get("LAMPLIGHTER_RUN")
    if not commit or not experiment:
        raise UserError("promote must run as a task of train__<product>: it promotes an experiment, not a folder")
    paths, metric = Paths(product.name), product.gates.metric
    measured = read_json(paths.report("metrics.json"))
    # A metric that the held-out rows do not define is not there.
    challenger, baseline = (measured[name].get(metric, math.nan) for name in ("model", "baseline"))
    # The one that is judged beside the challenger: a champion that knows later data has seen the held-out rows.
    champion, leader = registry.champions(product.name, as_of)
    held_out, standing = None, "none yet"
    if leader and leader.commit != commit:
        with tempfile.TemporaryDirectory() as folder:
            theirs = Path(folder) / "onnx"
            _fetch(leader.commit, paths.onnx, theirs)
            if folder_sha256(theirs) == folder_sha256(paths.onnx):
                registry.mirror(product)
                return f"{leader.version} is this very model and stays the champion"
            obstacle = incompatibility(theirs, product)
            held_out = None if obstacle else _score(theirs, product)
        standing = f"{leader.version} " + (f"not comparable, since it {obstacle}" if obstacle else f"{held_out:.4f}")
    elif leader:
        standing = "the same"
    failures = gate_failures(product, challenger, baseline, held_out)
    seen = f"{metric}: challenger {challenger:.4f}, baseline {baseline:.4f}, champion {standing}"
    if failures:
        return f"not promoted ({seen}): " + "; ".join(failures)
    approver = os.environ.get("LAMPLIGHTER_APPROVER")
    if product.gates.approval == "human" and not approver:
        return f"passes the gates, and waits for a human's approval ({seen})"
    who = f"{approver} and the gates" if approver else "the gates"
    why = f"approved by {who} of params.yaml: {seen}"
    new = registry.promote(product.name, commit, as_of, over=champion, why=why)
    registry.mirror(product)
    if champion and champion.knows_later_than(as_of):
        return f"{new.version} predicts nights up to {as_of}; {champion.version} knows later data and goes on ({seen})"
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


def incompatibility(champion: Path, product: Product) -> str:
    """Why the champion cannot be measured beside the challenger; nothing where it can."""
    from model.features.fitted import Features
    from model.target import read_target

    target = read_target(champion)
    if outdated := model_inputs.schema_mismatch(Features.load(champion).kinds, target, product):
        return outdated
    theirs, ours = target.classes, read_target(Paths(product.name).onnx).classes
    return f"answers with {', '.join(theirs)}" if ours and not set(ours) & set(theirs) else ""


def _score(champion: Path, product: Product) -> float:
    """The champion's metric on the rows that the challenger was measured on; what it does not know scores 0."""
    from model.scoring.scorer import Scorer
    from model.target import read_target

    paths, scorer = Paths(product.name), Scorer(champion)
    classes = read_target(paths.onnx).classes
    rows, y = model_inputs.split_part(paths.splits, "test", product).with_known_labels(classes)
    scores = model_inputs.scores(scorer, rows)
    if scores.ndim > 1:
        by_class = dict(zip(scorer.classes, scores.T, strict=True))
        scores = np.stack([by_class.get(name, np.zeros_like(scores[:, 0])) for name in classes], axis=1)
    value = gate_metric(product, y, scores)
    return math.nan if value is None else value


def _fetch(commit: str, path: Path, into: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "dvc",
        "get",
        "--quiet",
        settings().origin,
        str(path),
        "--rev",
        commit,
        "--out",
        str(into),
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise TransientError(redact_credentials(f"the champion's model could not be fetched: {answer.stderr.strip()}"))


if __name__ == "__main__":
    stage.main(promote)
