"""The part of a product's entry about what is seen of published nights, and what follows from it."""

from pydantic import Field
from pydantic.dataclasses import dataclass

from model.settings import STRICT, Count


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Rollback:
    """When the champion before is assigned again by itself: its nights were better, by a confidence sequence."""

    cool_down_days: Count = 28
    """So many days lie between the as_of of two such rollbacks."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Monitor:
    """What is seen of nights after they are published, and what follows from it."""

    shadow: bool = True
    """Whether the champion before, the newest model that was refused or waits, and the first champion score the same
    rows, apart from what is published, where they read the same columns."""
    retrain: bool = True
    """Whether train__<product> is started where labels show that the champion has become worse than in its first
    nights; drift of inputs warns, and starts nothing."""
    retrain_days: Count = 14
    """So many days lie between the as_of of two such trainings."""
    rollback: Rollback | None = Field(default_factory=Rollback)
    """When the champion before is assigned again; null: by a person only."""
