"""What a challenger must show before it may predict, as frozen dataclasses; field texts are the reference."""

from collections.abc import Iterator, Mapping
from datetime import date
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from model.features.kinds import KINDS
from model.heads import METRICS, head_of
from model.settings import STRICT, Count
from tasks.params.fields import Finite


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SliceGates:
    """What a challenger must show on each declared slice of the held-out rows."""

    max_behind_champion: Annotated[float | None, Field(ge=0, allow_inf_nan=False, examples=[0.01])] = 0.0
    """How far it may fall behind the champion on a slice: it is stopped where the whole interval of its lead there is
    below that. The intervals of all slices hold together in 95 of 100 cases. null: slices stop no challenger."""
    max_gap: Annotated[float | None, Field(ge=0, allow_inf_nan=False, examples=[0.1])] = None
    """The largest difference of its metric between two slices of one entry, whatever the champion's is. null: it is
    reported, and stops nothing."""
    min_rows: Count = 200
    """Held-out rows of a slice; with fewer it is counted, and neither measured nor judged."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportGates:
    """What the exported files must show, with the engine that will score; without a limit a figure is only reported."""

    limit: Annotated[float | None, Field(allow_inf_nan=False, examples=[0.5])] = None
    """The gates' metric of the exported files on held-out rows: at least this much; at most, for errors and losses."""
    min_rows_per_second: Annotated[float | None, Field(ge=0, allow_inf_nan=False, examples=[1000])] = None
    """Rows that they score in a second of one core's time, or of a GPU's."""
    max_megabytes: Annotated[float | None, Field(ge=0, allow_inf_nan=False, examples=[50])] = None
    """Size of all exported files, of 1,000,000 bytes each."""
    max_memory_megabytes: Annotated[float | None, Field(ge=0, allow_inf_nan=False, examples=[1000])] = None
    """The most memory that a process of its own holds which loads the files and scores held-out rows; measured where
    there is a limit."""


def _to_change(value: Any) -> Any:
    """Return a new value, or how much is added. Raises ValueError for what is neither."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str) or is_number:
        return value
    if isinstance(value, dict) and set(value) == {"add"}:
        added = value["add"]
        if isinstance(added, int | float) and not isinstance(added, bool) and added:
            return {"add": float(added)}
    raise ValueError(f"must be a value or {{add: number}} with a number other than 0, got {value!r}; use {{add: 10}}")


Change = Annotated[
    str | float | dict[Literal["add"], float],
    BeforeValidator(_to_change, json_schema_input_type=str | float | dict[Literal["add"], float]),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BehaviourTest:
    """What a change of a row must do to its prediction, on held-out rows, by the exported files that will score."""

    change: Annotated[dict[str, Change], Field(min_length=1, examples=[{"weight_kg": {"add": 10}}])]
    """Inputs with their new value, or with what is added to a number (to a time: days). Rows that it leaves as they are
    are not counted, nor are missing cells to which something would be added."""
    must: Annotated[Literal["not_move", "increase", "decrease"], Field(examples=["increase"])]
    """What the prediction must do: the probability of a yes, the number, or the probability of the class `of`."""
    by: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    """not_move: by no more than this; else by at least this. In the unit of the prediction."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The share of changed rows of which that must be true."""
    of: Annotated[str | None, Field(examples=["sports"])] = None
    """multiclass, multilabel: the class that is looked at; not_move without it: all classes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Gates:
    """What a challenger must show on held-out rows before it may predict."""

    metric: Annotated[str, Field(examples=["auc"], json_schema_extra={"enum": sorted({*chain(*METRICS.values())})})]
    """The metric that decides; it is also the one `make run` prints first. Default: auc (binary), macro_f1 (multiclass,
    multilabel), r2 (regression)."""
    limit: Annotated[Finite, Field(examples=[0.5])]
    """At least this much; at most, for errors and losses, where it must be given. Default: 0.5 for auc, else 0."""
    max_behind_baseline: Annotated[Finite, Field(examples=[0.01])] = 0.02
    """How far it may fall behind the baseline."""
    max_behind_champion: Annotated[Finite, Field(examples=[0.01])] = 0.0
    """How far it may fall behind the champion, scored on the same rows, from which neither has learnt."""
    champion_lead: Literal["any", "significant"] | None = None
    """any: its lead over the champion need only be more than -max_behind_champion. significant: the whole 95 % interval
    of the lead must be, with days as observations (groups where the split is by hash). Default: significant with
    approval: human, else any."""
    calibration: Literal["not_worse", "any"] = "not_worse"
    """not_worse: where its probabilities are surely worse than the champion's, with days as observations, the champion
    stays: their squared error (brier) by more than 0.5 %, or the calibration error (ece) within a day by more than 0.01
    while the squared error is larger too. any: it is not looked at."""
    min_positives: Annotated[int, Field(ge=0)] = 10
    """Held-out rows of the rarer answer of a binary target; with fewer nothing is decided, and the champion stays."""
    min_days_between: Annotated[int, Field(ge=0)] = 7
    """Days from the as_of of one champion to that of the next, so that a model is not exchanged for every day's
    noise. Another model of the same as_of waits for nothing."""
    slices: SliceGates = Field(default_factory=SliceGates)
    """What it must show on each of the declared `slices`."""
    export: ExportGates = Field(default_factory=ExportGates)
    """What the files that will score must show."""
    approval: Literal["none", "human"] = "none"
    """none: passing the gates is enough. human: someone must approve as well, in Airflow; silence rejects."""

    @property
    def wants_significant_lead(self) -> bool:
        """Return whether the lead over the champion must be above what chance explains."""
        return (self.champion_lead or ("significant" if self.approval == "human" else "any")) == "significant"


def mistakes_of_behaviour(
    tests: tuple[BehaviourTest, ...], kinds: Mapping[str, str | None], task: str
) -> Iterator[str]:
    """Yield the changes that no input of their kind can have; `kinds` are those of the inputs."""
    has_classes = head_of(task).max_classes != 2 and head_of(task).has_classes
    for i, test in enumerate(tests):
        place = f"behaviour.{i}"
        if test.of is not None and not has_classes:
            yield f"{place}.of must not be given for a {task} target, got {test.of!r}; delete it"
        elif test.of is None and has_classes and test.must != "not_move":
            yield f"{place}.of must name the class whose probability must {test.must}, and is not given; add it"
        for name, value in test.change.items():
            kind = kinds.get(name)
            cells = KINDS[kind].cells if kind in KINDS else None
            if name not in kinds:
                yield f"{place}.change must name inputs, got {name!r}; use one of {', '.join(kinds)}"
            elif isinstance(value, dict):
                if cells == "str":
                    yield f"{place}.change.{name} must be a value, since nothing can be added to a {kind}; write one"
            elif cells == "str" and not isinstance(value, str):
                yield f"{place}.change.{name} must be text for a {kind}, got {value:g}; write it in quotes"
            elif cells == "float64" and isinstance(value, str):
                yield f"{place}.change.{name} must be a number for a {kind}, got {value!r}; correct it"
            elif cells == "datetime64[s]" and not _is_day(value):
                yield f"{place}.change.{name} must be a date or {{add: days}} for a {kind}, got {value!r}; correct it"


def _is_day(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(date.fromisoformat(value))
    except ValueError:
        return False
