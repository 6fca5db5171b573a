"""Numbers ahead in the table: what benchmarks/ahead.py finds at its dates, as lines."""

from functools import cached_property

import numpy as np

from benchmarks import ahead
from benchmarks.ahead import HeldOut, absolute_error, pigeonhole_interval
from benchmarks.matrix.lines import LINES, Line
from benchmarks.matrix.measuring import BASELINE, OURS, Bench

METRIC = "mae"


class ForecastBench(Bench):
    """The product whose peers are fitted anew on every evening; speed and memory of its parts are not told apart."""

    @cached_property
    def found(self) -> HeldOut:
        """Return what all say of the held-out rows."""
        return ahead.of_dates(self.product, ahead.asked())

    def measure(self, competitor: str) -> Line:
        """Measure one and keep its line."""
        name = {OURS: ahead.OURS, BASELINE: ahead.NAIVE}.get(competitor, competitor)
        found = self.found
        series, day = (np.unique(found.rows[key], return_inverse=True)[1] for key in ("series", "day"))
        losses, own = (absolute_error(found.y, found.scores[each]) for each in (name, ahead.OURS))
        behind = losses - own
        line = Line(
            product=self.entry.product,
            competitor=competitor,
            revision=self.revision(competitor),
            machine=self.machine,
            metric=METRIC,
            lower_is_better=True,
            rows={"test": len(losses)},
            value=float(losses.mean()),
            interval=pigeonhole_interval(losses, series, day),
            lead=None if competitor == OURS else (float(behind.mean()), *pigeonhole_interval(behind, series, day)),
            n_blocks=int(series.max()) + 1,
            seconds=None if competitor == BASELINE else round(found.seconds[name], 1),
        )
        LINES.append([line])
        return line
