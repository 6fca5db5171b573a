"""Measure the exported files as they will score, for the gates: metric, speed, size, memory and behaviour."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from tasks.params import Product
from tasks.rows.model_inputs import SplitPart
from tasks.runtime.records import RECORD, Record
from tasks.training.engine_choice import Choice
from tasks.training.held_out.behaviour import MeasuredBehaviour, measure_behaviour
from tasks.training.held_out.peak_memory import peak_memory_bytes


@dataclass(frozen=True, kw_only=True, config=RECORD)
class MeasuredFiles(Record):
    """What the exported files showed, with the engine that will score."""

    engine: str
    """Its name."""
    value: float | None
    """The gates' metric on held-out rows; None where these do not define it."""
    rows_per_second: float | None
    """Validation rows in a second of one core's time, or of a GPU's."""
    bytes: int
    """Of all exported files."""
    peak_memory_bytes: int | None = None
    """Of a process that scores held-out rows; None where gates.export has no limit for it."""
    behaviour: tuple[MeasuredBehaviour, ...] = ()
    """Every declared test."""


def measure_files(product: Product, folder: Path, rows: SplitPart, choice: Choice) -> MeasuredFiles:
    """Measure the exported files in a folder; `choice` has what was measured when their engine was chosen."""
    from model.scoring.scorer import Scorer

    speeds = [each.rows_per_cpu_second for each in choice.candidates if each.engine == choice.engine]
    has_limit = product.gates.export.max_memory_megabytes is not None
    return MeasuredFiles(
        engine=str(choice.engine),
        value=choice.held_out.get(choice.engine),
        rows_per_second=speeds[0] if speeds else None,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        peak_memory_bytes=peak_memory_bytes(product, folder) if has_limit else None,
        behaviour=measure_behaviour(product, Scorer(folder), rows) if product.behaviour else (),
    )
