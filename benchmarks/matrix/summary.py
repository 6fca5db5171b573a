"""The lines as tables: one with the best peer of each product, and one of everyone on each."""

from typing import Any

from benchmarks.matrix.lines import Line
from benchmarks.matrix.measuring import OURS
from benchmarks.matrix.products import PRODUCTS
from benchmarks.report import Result, Target

MIB = 2**20


def summarise(found: list[Line]) -> Result:
    """Return the tables over all lines, of each product the newest of ours and of all who were measured beside it."""
    table, everyone, targets, absent, old = [], {}, [], [], 0
    for name, entry in PRODUCTS.items():
        lines = {line.competitor: line for line in found if line.product == name}
        if OURS not in lines:
            absent.append(name)
            continue
        own = lines[OURS]
        others = [line for line in lines.values() if line.competitor != OURS and _beside(line, own)]
        others.sort(key=lambda line: line.value, reverse=not own.lower_is_better)
        old += len(lines) - 1 - len(others)
        peers = [line for line in others if line.competitor in entry.peers]
        best = peers[0] if peers else next(iter(others), None)
        table.append(_summary(name, entry.data, own, best))
        everyone[f"{name}: {own.metric}{', lower is better' if own.lower_is_better else ''}"] = [
            _row(line) for line in (own, *others)
        ]
        if best and best.lead:
            targets.append(_target(name, best))
    if not table:
        raise SystemExit("no line of ours was found; run python -m benchmarks.matrix first")
    notes = [f"Not measured yet: {', '.join(absent)}."] if absent else []
    if old:
        notes.append(f"Lines of peers that are of an earlier state of ours, and are left out: {old}.")
    return Result(name="matrix", tables={"Ours and the best peer": table, **everyone}, targets=targets, notes=notes)


def _beside(line: Line, own: Line) -> bool:
    """Return whether a line was measured beside these held-out scores of ours, on this machine."""
    return line.revision.partition("-")[0] == own.revision and line.machine == own.machine


def _summary(name: str, data: str, own: Line, best: Line | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "product": name,
        "data": data,
        "held-out rows": own.rows["test"],
        "metric": own.metric,
        "Lamplighter": _figure(own),
        "best peer": best and f"{best.competitor}: {_figure(best)}",
        "ours leads by": best and _lead(best),
    }
    for title, format_of in (("rows/s", _speed), ("minutes to train", _minutes), ("MiB", _memory)):
        row[f"{title}, ours"], row[f"{title}, peer"] = format_of(own), best and format_of(best)
    return row


def _row(line: Line) -> dict[str, Any]:
    return {
        "who": line.competitor,
        line.metric: _figure(line),
        "ours leads by": _lead(line),
        "rows/s": _speed(line),
        "minutes to train": _minutes(line),
        "MiB to train and to score": _memory(line),
        **{name: f"{value:.4f}" for name, value in line.worth.items()},
    }


def _target(name: str, best: Line) -> Target:
    assert best.lead is not None
    return Target(
        name=f"{name}: not surely behind {best.competitor}",
        wanted="at least 0 within the interval",
        measured=_lead(best),
        met=best.lead[2] >= 0,
    )


def _figure(line: Line) -> str:
    return f"{line.value:.4f}" + (" ({:.4f} to {:.4f})".format(*line.interval) if line.interval else "")


def _lead(line: Line) -> str:
    return "{:+.4f} ({:+.4f} to {:+.4f})".format(*line.lead) if line.lead else ""


def _speed(line: Line) -> int | None:
    return line.rows_per_second


def _minutes(line: Line) -> str:
    return "" if line.seconds is None else f"{line.seconds / 60:.2f}"


def _memory(line: Line) -> str:
    found = (line.training_bytes, line.scoring_bytes)
    return " / ".join(f"{each / MIB:,.0f}" for each in found if each is not None)
