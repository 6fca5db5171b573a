"""Compare a challenger with the baseline and the champion, and say whether it passes the gates of params.yaml."""

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from tasks.params import LOWER_IS_BETTER, Product
from tasks.rows import model_inputs
from tasks.runs import remote
from tasks.runs.registry.tags import Champion
from tasks.runtime.files import folder_sha256, read_json
from tasks.runtime.paths import Paths
from tasks.runtime.records import RECORD, Record
from tasks.training.gate_metric import gate_metric


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Verdict(Record):
    """The outcome of promote."""

    decision: Literal["promoted", "champion already", "rejected", "withdrawn", "held", "needs approval"]
    """`withdrawn` where a person has taken a model of the same content out; `held` where the gates are passed and a
    person holds the champion; `needs approval` where they are passed and gates.approval asks for a human that nobody
    has named."""
    line: str
    """The metrics, and the gates that the challenger does not pass."""

    def __str__(self) -> str:
        return self.line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The gate metric of challenger, baseline and champion on the same held-out rows."""

    metric: str
    """The metric's name."""
    challenger: float
    """NaN where the held-out rows do not define it."""
    baseline: float
    """NaN where the held-out rows do not define it."""
    champion: float | None = None
    """None where there is no champion to compare with."""
    about_champion: str = "none yet"
    """The champion's version with its metric, or the reason why it has none."""

    def __str__(self) -> str:
        return (
            f"{self.metric}: challenger {self.challenger:.4f}, baseline {self.baseline:.4f}, "
            f"champion {self.about_champion}"
        )


def compare(product: Product, commit: str, champion: Champion | None) -> Comparison | None:
    """Measure the champion beside the challenger of an experiment; return None where they are the very same model."""
    measured, metric = read_json(Paths(product.name).report("metrics.json")), product.gates.metric
    challenger, baseline = (measured[name].get(metric, math.nan) for name in ("model", "baseline"))
    alone = Comparison(metric=metric, challenger=challenger, baseline=baseline)
    if champion is None:
        return alone
    if champion.commit == commit:
        return dataclasses.replace(alone, about_champion="the same")
    onnx = Paths(product.name).onnx
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "onnx"
        meaning = (
            f"products.{product.name}: the champion {champion.version} ({onnx}), which the new model is compared with,"
        )
        way_out = remote.way_out_of_lost_model(product.name, champion.version, champion.commit)
        remote.get(champion.commit, onnx, model, meaning, way_out)
        if folder_sha256(model) == folder_sha256(onnx):
            return None
        if reason := incompatibility(model, product):
            return dataclasses.replace(alone, about_champion=f"{champion.version} not comparable, since it {reason}")
        value = held_out_metric(model, product)
    return dataclasses.replace(alone, champion=value, about_champion=f"{champion.version} {value:.4f}")


def gate_failures(product: Product, challenger: float, baseline: float, champion: float | None) -> list[str]:
    """Return the gates that the challenger does not pass; `champion` is None where there is none."""
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
    """Return why the champion cannot be measured beside the challenger; nothing where it can."""
    from model.features.fitted import Features
    from model.target import read_target

    target = read_target(champion)
    if mismatch := model_inputs.schema_mismatch(Features.load(champion).kinds, target, product):
        return mismatch
    known, wanted = target.classes, read_target(Paths(product.name).onnx).classes
    return f"answers with {', '.join(known)}" if wanted and not set(wanted) & set(known) else ""


def held_out_metric(champion: Path, product: Product) -> float:
    """Return the champion's metric on the challenger's held-out rows; a class that it does not know scores 0.

    Classes are those of the challenger, of the held-out rows and of the champion itself: an answer counts as it was.
    """
    from model.scoring.scorer import Scorer
    from model.target import read_target

    paths, scorer = Paths(product.name), Scorer(champion)
    rows = model_inputs.split_part(paths.splits, "test", product)
    known = tuple(dict.fromkeys([*read_target(paths.onnx).classes, *scorer.classes]))
    classes = model_inputs.all_classes(rows.labels, product, known)
    y = model_inputs.targets(rows.labels, product, classes)
    scores = model_inputs.scores_of_classes(model_inputs.scores(scorer, rows), scorer.classes, classes)
    value = gate_metric(product, y, scores)
    return math.nan if value is None else value
