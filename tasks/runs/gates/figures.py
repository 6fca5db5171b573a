"""Keep what was measured of a challenger in the verdict on it.

metrics.json is an output of the run, kept by hash: of a run that was rejected it may be gone from this machine, and
after a while from the remote. What a report, a page or a person is to see of it later stands in the verdict.
"""

from collections.abc import Mapping

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.params import Product
from tasks.runs.gates.comparison import Comparison
from tasks.runtime.files import folder_sha256, read_json
from tasks.runtime.fingerprints import json_sha256
from tasks.runtime.paths import Paths
from tasks.runtime.records import RECORD, Record
from tasks.training.held_out.exported import MeasuredFiles
from tasks.training.held_out.search import FoundSlice
from tasks.training.held_out.slices import Interval, MeasuredSlices


@dataclass(frozen=True, kw_only=True, config=RECORD)
class ComparedChampion(Record):
    """The champion that a challenger was compared with, on the held-out rows that neither has learnt from."""

    version: str
    """Its version in the registry."""
    rows: int
    """How many rows these are."""
    value: float | None
    """The gates' metric of the champion on these rows; None where they do not define it."""
    challenger: float | None
    """The same of the challenger."""
    lead: float | None = None
    """How much better the challenger is; None where these rows do not define it."""
    lead_interval_95: Interval | None = None
    """With days or groups as observations."""


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Figures(Record):
    """What was measured of a challenger."""

    metric: str
    """The gates' metric."""
    model_sha256: str = ""
    """Of the exported model that was measured."""
    rows: int | None = None
    """Held-out rows; None where the run does not say it."""
    value: float | None = None
    """The challenger's metric on them; None where they do not define it."""
    interval_95: Interval | None = None
    """With rows as observations."""
    metrics: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    """The content of metrics.json: every metric by its name, of model, baseline and what else was measured."""
    slices: MeasuredSlices | None = None
    """Declared slices; None where there are none."""
    look_here: tuple[FoundSlice, ...] = ()
    """Slices that nobody declared, on which the model errs more than elsewhere; no gate looks at them."""
    files: MeasuredFiles | None = None
    """The exported files; None where the run does not say it."""
    champion: ComparedChampion | None = None
    """None where there is none, or none to be compared with."""

    @property
    def called(self) -> str:
        """Return the name of these figures, by which a person approves them and no others.

        It names the model, what its run measured and the champion's version, all of which are kept in files. What is
        computed anew at each look, such as the champion's metric, follows from these.
        """
        content = self.to_json()
        champion = self.champion and self.champion.version
        decides = [self.model_sha256, content["metrics"], content["files"], champion]
        return f"figures-{json_sha256(decides)[:12]}"


def figures_of(product: Product, comparison: Comparison | None = None) -> Figures:
    """Return what the run in this folder measured, and how it compares."""
    paths, metric = Paths(product.name), product.gates.metric
    evaluation = read_json(paths.report("evaluation.json"))
    model = evaluation["model"]
    slices = evaluation.get("slices")
    exported = paths.report("export.json")
    files = read_json(exported).get("files") if exported.exists() else None
    return Figures(
        metric=metric,
        model_sha256=folder_sha256(paths.onnx),
        rows=evaluation.get("rows_test"),
        value=model.get(metric),
        interval_95=model.get(f"{metric}_interval_95") and tuple(model[f"{metric}_interval_95"]),
        metrics=read_json(paths.report("metrics.json")),
        slices=slices and MeasuredSlices.from_json(slices),
        look_here=tuple(FoundSlice.from_json(each) for each in evaluation.get("look_here", ())),
        files=files and MeasuredFiles.from_json(files),
        champion=None if comparison is None else _champion(comparison),
    )


def _champion(comparison: Comparison) -> ComparedChampion | None:
    """Return the champion's part of a comparison."""
    if comparison.champion is None or comparison.champion_version is None:
        return None
    lead = comparison.lead
    return ComparedChampion(
        version=comparison.champion_version,
        rows=comparison.n_compared,
        value=finite(comparison.champion),
        challenger=finite(comparison.challenger_beside),
        lead=None if lead is None else lead.value,
        lead_interval_95=None if lead is None else (lead.low, lead.high),
    )


def finite(value: float) -> float | None:
    """Return a number as JSON has it: None for NaN."""
    return value if value == value else None
