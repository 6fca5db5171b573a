"""Judge the exported files: their own metric, speed, size and memory, and what a change of a row does to them."""

from tasks.monitoring.gate import BEHAVIOUR, Gate
from tasks.params import LOWER_IS_BETTER, Product
from tasks.training.held_out.exported import MeasuredFiles

MEGABYTE = 1_000_000


def judge_files(product: Product, files: MeasuredFiles | None) -> list[Gate]:
    """Return a gate for each declared limit; what was not measured opens none."""
    limits, falls = product.gates.export, product.gates.metric in LOWER_IS_BETTER
    figures = (
        ("limit", limits.limit, files.value if files else None, falls, f"{product.gates.metric} of the exported files"),
        (
            "min_rows_per_second",
            limits.min_rows_per_second,
            files.rows_per_second if files else None,
            False,
            "rows a second",
        ),
        ("max_megabytes", limits.max_megabytes, files.bytes / MEGABYTE if files else None, True, "megabytes of files"),
        ("max_memory_megabytes", limits.max_memory_megabytes, _memory(files), True, "megabytes of memory"),
    )
    return [
        _gate(name, limit, value, at_most, unit) for name, limit, value, at_most, unit in figures if limit is not None
    ]


def _memory(files: MeasuredFiles | None) -> float | None:
    return files.peak_memory_bytes / MEGABYTE if files and files.peak_memory_bytes is not None else None


def _gate(name: str, limit: float, value: float | None, at_most: bool, unit: str) -> Gate:
    """Return a gate on one figure of the files."""
    seen = "it was not measured" if value is None else f"it is {value:,.4g}"
    return Gate(
        name=f"export.{name}",
        passed=value is not None and (value <= limit if at_most else value >= limit),
        value=value,
        wanted=f"{'at most' if at_most else 'at least'} {limit:,.4g} {unit}, and {seen}",
        threshold=limit,
    )


def judge_behaviour(product: Product, files: MeasuredFiles | None) -> list[Gate]:
    """Return a gate for each test of behaviour; what was not measured, or no row could answer, opens none."""
    measured = files.behaviour if files else ()
    gates = []
    for i, test in enumerate(product.behaviour):
        wanted = f"a share of at least {test.share:g} of the changed rows"
        if i >= len(measured):
            wanted = f"{wanted}, and it was not measured"
            gates.append(Gate(name=f"{BEHAVIOUR}.{i}", passed=False, value=None, wanted=wanted, threshold=test.share))
            continue
        found = measured[i]
        gates.append(
            Gate(
                name=f"{BEHAVIOUR}.{i}",
                passed=found.passed,
                value=found.share,
                wanted=f"{wanted}, and it is {found}",
                threshold=test.share,
                interval_95=found.interval_95,
                about=found.test,
            )
        )
    return gates
