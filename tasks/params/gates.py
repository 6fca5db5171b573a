"""What a challenger must show before it may predict, as frozen dataclasses; field texts are the reference."""

from itertools import chain
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from model.heads import METRICS
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
    """not_worse: where its calibration error (ece) is larger than the champion's by more than chance explains, the
    champion stays. any: it is not looked at."""
    min_positives: Annotated[int, Field(ge=0)] = 10
    """Held-out rows of the rarer answer of a binary target; with fewer nothing is decided, and the champion stays."""
    min_days_between: Annotated[int, Field(ge=0)] = 7
    """Days from the as_of of one champion to that of the next, so that a model is not exchanged for every day's
    noise. Another model of the same as_of waits for nothing."""
    slices: SliceGates = Field(default_factory=SliceGates)
    """What it must show on each of the declared `slices`."""
    approval: Literal["none", "human"] = "none"
    """none: passing the gates is enough. human: someone must approve as well, in Airflow; silence rejects."""

    @property
    def wants_significant_lead(self) -> bool:
        """Return whether the lead over the champion must be above what chance explains."""
        return (self.champion_lead or ("significant" if self.approval == "human" else "any")) == "significant"
