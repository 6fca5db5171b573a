"""Numbers ahead in the table: what benchmarks/ahead.py finds at its dates, as lines."""

from functools import cached_property
from typing import Any

import numpy as np

from benchmarks import ahead
from benchmarks.ahead import HeldOut, absolute_error, pigeonhole_interval
from benchmarks.matrix.measuring import BASELINE, OURS, Bench

METRIC = "mae"


class ForecastBench(Bench):
    """The product whose peers are fitted anew on every evening; speed and memory of its parts are not told apart."""

    @cached_property
    def held_out(self) -> HeldOut:
        """Return what all say of the held-out rows."""
        return ahead.of_dates(self.product, ahead.asked())

    def cost(self, competitor: str) -> dict[str, Any]:
        """Return the field of its line that says how long it takes."""
        return {} if competitor == BASELINE else {"seconds": round(self.held_out.seconds[_name(competitor)], 1)}

    def quality(self, competitor: str) -> dict[str, Any]:
        """Return the fields of its line that say how good its forecasts are."""
        found = self.held_out
        series, day = (np.unique(found.rows[key], return_inverse=True)[1] for key in ("series", "day"))
        losses, own = (absolute_error(found.y, found.scores[each]) for each in (_name(competitor), ahead.OURS))
        behind = losses - own
        return {
            "metric": METRIC,
            "lower_is_better": True,
            "rows": {"test": len(losses)},
            "value": float(losses.mean()),
            "interval": pigeonhole_interval(losses, series, day),
            "lead": None if competitor == OURS else (float(behind.mean()), *pigeonhole_interval(behind, series, day)),
            "n_blocks": int(series.max()) + 1,
        }


def _name(competitor: str) -> str:
    """Return what benchmarks/ahead.py calls it."""
    return {OURS: ahead.OURS, BASELINE: ahead.NAIVE}.get(competitor, competitor)
