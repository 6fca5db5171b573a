"""What a night predicts, as a part of a product's entry."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from model.heads.label_scale import Point
from model.heads.next_item import TOP
from model.settings import STRICT, GenerationSettings
from tasks.params.answers.horizons import HorizonDays
from tasks.params.fields import Costs, Threshold, checked_levels

MAX_SHARDS = 64
MAX_MADE_ROWS = 10_000_000


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Predict:
    """Which rows a night scores, and in how many pieces."""

    horizon_days: HorizonDays = 0
    """A night of as_of scores the rows of day as_of + horizon_days; rows of day D are known horizon_days before. A
    list, such as [1, 7, 28], is of days ahead: the night scores the rows of as_of itself, once for each, and the label
    of a row of day D and horizon 7 is that of the row of day D + 7 whose key is the same but for the time. A change
    needs another training."""
    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)] = 8
    """The most part files of a night; each is scored by a task of its own."""
    rows_per_shard: Annotated[int, Field(ge=1)] = 50_000
    """How many rows a part is meant to have: a night has as many parts as its rows ask for, up to `shards`."""
    threshold: Threshold = 0.5
    """binary, multilabel: the probability from which on a class is predicted; span: that there is an answer, from which
    on it is given. A number applies from the next night on.
    measured: chosen on the validation rows, for each label of its own, for the least cost where there are `costs`, else
    for the most of gates.metric where that is f1, accuracy or balanced_accuracy, else of F1; of spans for the most of
    gates.metric. It comes with the model, from the next training on. Default: 0.5; with costs measured."""
    costs: Annotated[Costs | None, Field(examples=[{"false_positive": 1, "false_negative": 5}])] = None
    """What an error costs, in any unit. binary, and each label of multilabel: {false_positive: 1, false_negative: 5}.
    multiclass: by true and then predicted class, {spam: {mail: 1}, mail: {spam: 10}}, 1 where none is given; then the
    class of least expected cost is predicted. Their mean over the rows is the metric expected_cost. Default: every
    error costs 1."""

    top: Annotated[int, Field(ge=1, le=1000)] = TOP
    """next_item: items of a list; its metrics are those of lists of this length. A change needs another training."""
    text: GenerationSettings = Field(default_factory=GenerationSettings)
    """generate: how texts are written."""
    quantiles: Annotated[tuple[float, ...], AfterValidator(checked_levels), Field(examples=[[0.1, 0.5, 0.9]])] = ()
    """regression: levels of the quantiles that stand beside the prediction: columns quantile_10,
    quantile_50, quantile_90 of [0.1, 0.5, 0.9]. Of 100 labels 10 are meant to lie below the first, 90 below the last.
    A change needs another training. Default: none."""
    point: Point = "mean"
    """regression: what a prediction is of the numbers that such a row may have. Of means the sums come out right, and
    squared errors are least; medians have the least absolute errors, and a few large numbers do not move them. A change
    needs another training. Default: mean; with gates.metric mae median."""
    explain: Annotated[int, Field(ge=0, le=10)] = 0
    """How many reasons each row of a night has: columns reason_1, reason_2, ... with the columns that move its score
    most, such as `carrier (+0.12)`: how much higher the score is than with that cell missing, of several classes that
    of the likeliest one. A night then takes as many scorings more as there are columns. 0: none."""

    make_rows: Annotated[int, Field(ge=0, le=MAX_MADE_ROWS)] = 0
    """reconstruct: how many rows `evaluate` makes up, for tests and demonstrations, as data/made_rows/<product>/
    rows.parquet, with the names and types of the columns that rows are stored with. Nothing is promised of privacy.
    The same model.train.seed gives the same rows, and more of them begin with the same. 0: none."""

    @property
    def horizons(self) -> tuple[int, ...]:
        """Return the days ahead for which each row is predicted; () where it is predicted once, for its own day."""
        return self.horizon_days if isinstance(self.horizon_days, tuple) else ()

    @property
    def lead_days(self) -> int:
        """Return how many days before its own date a row is known and scored."""
        return 0 if isinstance(self.horizon_days, tuple) else self.horizon_days

    @property
    def longest_horizon(self) -> int:
        """Return how many days after a row's own date the last day lies that is predicted from it."""
        return max(self.horizons, default=0)

    def n_shards(self, n_rows: int) -> int:
        """Return the number of part files of a night of so many rows; a night without rows has one, which is empty."""
        n_predictions = n_rows * max(1, len(self.horizons))
        return max(1, min(self.shards, -(-n_predictions // self.rows_per_shard)))
