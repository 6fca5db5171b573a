"""Draw one picture of a replay: the metric of each policy, the champion at each date, stops, quarantine and times."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tasks.commands.simulation.contracts import Outcome, Replay
from tasks.commands.simulation.policies import BASELINE, CHAMPION, FIRST, NEWEST, Series, rollbacks, series_of
from tasks.runtime.files import atomic_file

WINDOW = 7
"""Nights of a mean: each weekday once."""
COLOURS = {CHAMPION: "#0b5fa5", NEWEST: "#d9822b", FIRST: "#7a4fa3", BASELINE: "#777777"}
MARKS = {"promoted": ("^", "#2a7f3f"), "rejected": ("x", "#b3261e"), "stopped": ("X", "#b3261e")}
MAX_GATES = 3
"""Gates that are named of one refusal, one below the other."""
LABEL_WIDTH = 0.1
"""Of the picture: labels of refusals that are less apart lie on other sides of the line, or further from it."""
LABEL_OFFSETS = ((-8, "top"), (6, "bottom"), (-36, "top"), (34, "bottom"))
"""In points from the mark, the one that is tried first at first; a label may be so high."""


def draw(replay: Replay, place: Path) -> list[Path]:
    """Write the picture as SVG and PNG beside `place`, a path without an ending; return both files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    fixed: Any = {"svg.hashsalt": "lamplighter", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(fixed):
        figure, axes = pyplot.subplots(
            3, 1, figsize=(10, 8), sharex=True, layout="constrained", height_ratios=[5, 2.2, 1.8]
        )
        draw_metric(axes[0], replay)
        draw_champions(axes[1], replay)
        draw_nights(axes[2], replay)
        fault = replay.plan.fault
        for panel in axes:
            if fault:
                ends = [np.datetime64(day, "h") + hours for day, hours in ((fault.first, -12), (fault.last, 12))]
                panel.axvspan(*ends, color="#b3261e", alpha=0.1, linewidth=0)
        addition = f", with a fault: {fault.kind}" if fault else ""
        plan = replay.plan
        figure.suptitle(f"{plan.product}: nights {plan.first} to {plan.last} replayed{addition}")
        written: Any = ({"metadata": {"Date": None}}, {"dpi": 80, "metadata": {"Software": None}})
        files = [place.with_suffix(ending) for ending in (".svg", ".png")]
        for file, more in zip(files, written, strict=True):
            with atomic_file(file) as temporary:
                figure.savefig(temporary, format=file.suffix[1:], **more)
        pyplot.close(figure)
    return files


def draw_metric(axes: Any, replay: Replay) -> None:
    """Draw the mean of the last seven nights of each policy, and the noise of such a mean around the champion's."""
    for name, series in series_of(replay).items():
        if not series:
            continue
        days, means, errors = rolling(series)
        axes.plot(days, means, color=COLOURS[name], label=name, linewidth=2 if name == CHAMPION else 1.2)
        if name in (CHAMPION, BASELINE):
            axes.fill_between(days, means - errors, means + errors, color=COLOURS[name], alpha=0.13, linewidth=0)
        if name == CHAMPION:
            every = np.array(sorted(series), "datetime64[D]")
            axes.plot(every, [series[day] for day in sorted(series)], ".", color=COLOURS[name], markersize=3, alpha=0.5)
    axes.set(ylabel=f"{replay.metric}, mean of {WINDOW} nights")
    axes.set_title("dots: single nights; bands: standard error of the mean", fontsize=8, loc="right")
    axes.legend(ncols=4, fontsize=8, loc="lower left")
    axes.grid(alpha=0.25)


def rolling(series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return days, the mean of the nights up to each of the last seven days, and the standard error of that mean.

    The noise of one night is that of all nights about their neighbours' mean. Shapes: datetime64[D], float [n], [n].

    >>> rolling({"2024-01-01": 1.0, "2024-01-02": 2.0})[1].tolist()
    [1.0, 1.5]
    """
    nights = sorted(series)
    days, values = np.array(nights, "datetime64[D]"), np.array([series[night] for night in nights])
    windows = [(days > day - np.timedelta64(WINDOW, "D")) & (days <= day) for day in days]
    means = np.array([values[chosen].mean() for chosen in windows])
    noise = np.std(values - means, ddof=1) if len(values) > 1 else 0.0
    return days, means, noise / np.sqrt([chosen.sum() for chosen in windows])


def draw_champions(axes: Any, replay: Replay) -> None:
    """Draw which version was the champion after each step, and what the gates said of each challenger."""
    versions = list(dict.fromkeys(each.champion for each in replay.outcomes if each.champion))
    height = {version: place for place, version in enumerate(versions)}
    days = np.array([each.as_of for each in replay.outcomes], "datetime64[D]")
    at = [height.get(each.champion or "", np.nan) for each in replay.outcomes]
    axes.step(days, at, where="post", color=COLOURS[CHAMPION], linewidth=2)
    back = {each.as_of for each in rollbacks(replay)}
    for each in replay.of_kind("retrain"):
        mark, colour = MARKS.get(each.state, ("o", "#777777"))
        level = height.get(each.champion or "", 0)
        axes.plot(np.datetime64(each.as_of, "D"), level, mark, color=colour, markersize=6)
    for day in back:
        axes.plot(np.datetime64(day, "D"), height.get(_champion_at(replay, day), 0), "v", color="#b3261e", markersize=8)
    refused = [each for each in replay.of_kind("retrain") if each.state == "rejected"][:20]
    places = label_places([each.as_of for each in refused], (replay.plan.last - replay.plan.first).days)
    for each, place in zip(refused, places, strict=True):
        spot = (np.datetime64(each.as_of, "D"), height.get(each.champion or "", 0))
        offset, side = LABEL_OFFSETS[place]
        axes.annotate(
            short_reason(each), spot, (0, offset), textcoords="offset points", fontsize=6.5, ha="center", va=side
        )
    axes.set(
        ylabel="champion", yticks=range(len(versions)), yticklabels=versions, ylim=(-1.6, max(len(versions), 1) - 0.3)
    )
    axes.set_title("▲ promoted   ✕ refused, by which gate   ▼ rolled back", fontsize=8, loc="right")
    axes.grid(alpha=0.25)


def _champion_at(replay: Replay, day: date) -> str:
    found = [each.champion for each in replay.of_kind("night") if each.as_of == day]
    return (found[-1] if found else "") or ""


def label_places(days: Sequence[date], span_days: int) -> list[int]:
    """Return for each refusal, in order, which of LABEL_OFFSETS its label has, so that near ones do not overlap.

    >>> label_places([date(2024, 1, day) for day in (1, 8, 15, 29)], 90)
    [0, 1, 0, 0]
    """
    places: list[int] = []
    for i, day in enumerate(days):
        near = {place for earlier, place in zip(days[:i], places, strict=True) if _is_near(earlier, day, span_days)}
        free = [place for place in range(len(LABEL_OFFSETS)) if place not in near]
        places.append(free[0] if free else 0)
    return places


def _is_near(one: date, other: date, span_days: int) -> bool:
    return abs((other - one).days) < LABEL_WIDTH * span_days


def short_reason(outcome: Outcome) -> str:
    """Return the gates that a challenger did not pass, a line each, for the picture.

    >>> short_reason(Outcome(kind="retrain", as_of=date(2024, 1, 1), state="rejected", seconds=1,
    ...     reason="not promoted (auc ...): gates.calibration wants less; gates.limit wants more"))
    'calibration\\nlimit'
    """
    named = [part.partition(" ")[0].partition("[")[0] for part in outcome.reason.split("gates.")[1:]]
    return "\n".join(dict.fromkeys(each.replace("max_behind_", "") for each in named[:MAX_GATES]))


def draw_nights(axes: Any, replay: Replay) -> None:
    """Draw the rows in quarantine, the nights that were stopped, and after how many seconds each night was ready."""
    nights = replay.of_kind("night")
    days = np.array([each.as_of for each in nights], "datetime64[D]")
    axes.bar(days, [each.quarantined for each in nights], color="#c8c8c8", label="rows in quarantine")
    stopped = [each.as_of for each in nights if each.state == "stopped"]
    if stopped:
        mark, colour = MARKS["stopped"]
        at = np.array(stopped, "datetime64[D]")
        axes.plot(at, np.zeros(len(at)), mark, color=colour, label="stopped", clip_on=False)
    axes.set(ylabel="quarantine")
    beside = axes.twinx()
    beside.plot(days, [each.seconds for each in nights], color="#0b5fa5", linewidth=1, label="seconds until ready")
    beside.set(ylabel="seconds", ylim=(0, None))
    handles = [each for one in (axes, beside) for each in one.get_legend_handles_labels()[0]]
    axes.legend(handles, [each.get_label() for each in handles], fontsize=7, loc="upper left", ncols=3)
