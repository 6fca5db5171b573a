"""The lines as tables: every figure with its interval, wins, draws and losses, ranks, minutes and speed.

Figures of a set are compared split by split. The interval of the mean difference is that of the test rows: both are
measured on the same draws of them, the difference varies by s_i over the draws of split i, and the mean of n splits by
the root of the sum of s_i squared, over n. A draw is an interval that holds 0. What other training rows would change is
not in it. An error such as the MAE counts with its sign changed, so that more is always better. A peer's figure is that
of the lowest rung that is not below the seconds that ours took on that split. Only splits that a pair of competitors
both have are compared, and of these the ones of which the draws were kept and define the metric; where there is none,
the interval is Student's over the splits, and one split counts as a win or loss by its sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.breadth.lines import Line
from benchmarks.breadth.schedule import AUTOGLUON, LEAST_AUTOGLUON, OURS, PEERS, TUNED, Schedule
from benchmarks.breadth.sets import UNSEEN, Set
from benchmarks.intervals import student_interval
from benchmarks.peers import SCRIPTS
from benchmarks.report import Result, Target
from model.heads import LOWER_IS_BETTER

NOISE = 1e-9
"""Below it two figures are one."""
NORMAL = 1.96
"""Standard deviations of an interval that covers 95 %."""
MOST = 0.75
"""Share of the splits on which a competitor must have been measured to have a mean rank."""
LEAST_DRAWS = 50
"""Draws that must define a metric before their spread is taken."""


@dataclass(frozen=True)
class Lead:
    """How much better ours is than a peer, more being better, with the 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def outcome(self) -> str:
        """Return win, draw or loss."""
        return "win" if self.low > NOISE else "loss" if self.high < -NOISE else "draw"

    def __str__(self) -> str:
        """Return it for a person to read."""
        reach = f" ({self.low:+.4g} to {self.high:+.4g})" if self.high > self.low else ""
        return f"{self.value:+.4g}{reach}: {self.outcome}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that there is of one set: by competitor and split the line that counts."""

    one: Set
    lines: dict[str, dict[int, Line]]

    @property
    def sign(self) -> int:
        """Return -1 for errors."""
        return -1 if self.one.metric in LOWER_IS_BETTER else 1

    def values(self, competitor: str) -> np.ndarray:
        """Return the metric by split."""
        return np.array([line.value for _, line in sorted(self.lines[competitor].items())])

    def shared(self, peer: str) -> set[int]:
        """Return the splits on which both ours and a peer were measured."""
        return self.lines[OURS].keys() & self.lines[peer].keys()

    def lead(self, peer: str) -> "Lead | None":
        """Return how much better ours is on the splits that there are of each; None where they share none."""
        own, other, shared = self.lines[OURS], self.lines[peer], sorted(self.shared(peer))
        if not shared:
            return None
        differences = {split: self.sign * (own[split].value - other[split].value) for split in shared}
        spreads = {split: found for split in shared if (found := _spread(own[split], other[split])) is not None}
        if not spreads:
            values = np.array(list(differences.values()))
            return Lead(float(values.mean()), *_interval(values))
        value = float(np.mean([differences[split] for split in spreads]))
        reach = NORMAL * float(np.linalg.norm(list(spreads.values()))) / len(spreads)
        return Lead(value, value - reach, value + reach)

    def outcome(self, peer: str) -> str | None:
        """Return win, draw or loss against a peer; None where they share no split."""
        lead = self.lead(peer)
        return lead.outcome if lead else None

    def best_peer(self) -> str | None:
        """Return the peer with the best mean on the splits that it shares with ours."""
        found = {peer: lead.value for peer in PEERS if (lead := self.lead(peer))}
        return min(found, key=lambda peer: found[peer]) if found else None

    def ranks(self, competitors: Sequence[str]) -> dict[str, float] | None:
        """Return the rank of each one's mean, 1 for the best; None before all have been measured on a split."""
        shared = set.intersection(*(set(self.lines[name]) for name in competitors))
        if not shared:
            return None
        means = {name: np.mean([self.lines[name][split].value for split in shared]) for name in competitors}
        ranks = rankdata([-self.sign * mean for mean in means.values()])
        return dict(zip(means, map(float, ranks), strict=True))


def summarise(schedule: Schedule) -> Result:
    """Return the tables over all lines of the schedule's sets and splits."""
    measured = [found for one in schedule.sets if (found := _measured(schedule, one)).lines[OURS]]
    if not measured:
        raise SystemExit("no line of ours was found; run python -m benchmarks.breadth first")
    seen, unseen = ([each for each in measured if each.one.unseen == of] for of in (False, True))
    groups = {"all": measured, "seen": seen, "unseen": unseen}
    tables = {}
    for title, group in (("Sets", seen), ("Sets that nothing was chosen on", unseen)):
        if group:
            tables[title] = [_figures(each) for each in group]
    tables["Ours against each peer"] = [_tally(groups, peer) for peer in (*PEERS, None)]
    ranks = [row for name, group in groups.items() if (row := _mean_ranks(name, group))]
    if ranks:
        tables["Mean rank among those measured on most splits, where all of them were"] = ranks
    tables["Seconds to train or search, and rows scored in a second of one core: median over the sets"] = [
        _pace(measured, name) for name in (OURS, *TUNED, *AUTOGLUON)
    ]
    tables["What it takes: ours and LightGBM, on one core"] = [_cost(each) for each in measured]
    return Result(name="breadth", tables=tables, targets=_targets(groups), notes=_notes(schedule, measured))


def _measured(schedule: Schedule, one: Set) -> Measured:
    """Choose the lines of each split: ours the newest, a peer's by the time that ours took, of the same machine if any.

    Times are those of the processor, alike enough between machines for a peer that was measured on another one alone.
    """
    chosen: dict[str, dict[int, Line]] = {}
    for name in (OURS, *PEERS):
        found = [line for line in schedule.usable(one, name) if line.split in schedule.splits]
        if name in TUNED or name in AUTOGLUON:
            found = [line for own in chosen[OURS].values() if (line := _at_rung(found, own, name))]
        chosen[name] = {line.split: line for line in found}  # the newest is the last
    return Measured(one=one, lines=chosen)


def _at_rung(lines: list[Line], own: Line, name: str) -> Line | None:
    """Return a peer's line on the split of ours that had the time of ours; None where it was not measured there."""
    of_split = [line for line in lines if line.split == own.split]
    here = [line for line in of_split if line.machine == own.machine] or of_split
    here.sort(key=lambda line: line.rung)
    needed = max(own.seconds, LEAST_AUTOGLUON if name in AUTOGLUON else 0)
    return next((line for line in here if line.rung >= needed), here[-1] if here else None)


def _spread(own: Line, other: Line) -> float | None:
    """Return the standard deviation of the difference over the draws of the test rows; None where it is not known."""
    pairs = [(a, b) for a, b in zip(own.resampled, other.resampled, strict=False) if a is not None and b is not None]
    if len(pairs) < LEAST_DRAWS:
        return None
    return float(np.std([a - b for a, b in pairs], ddof=1))


def _interval(differences: np.ndarray) -> tuple[float, float]:
    if len(differences) == 1 or np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    return student_interval(differences)


def _with_reach(values: np.ndarray) -> str:
    """Return a mean and how far its interval reaches on each side."""
    if not len(values):
        return ""
    mean = float(values.mean())
    digits = max(0, 4 - max(0, int(np.floor(np.log10(abs(mean) + 1e-12)) + 1)))
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {_interval(values)[1] - mean:.{digits}f}"


def _figures(each: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {"set": each.one.name, "rows": each.one.n_rows, "metric": each.one.metric}
    row |= {name: _with_reach(each.values(name)) for name in (OURS, *PEERS)}
    best = each.best_peer()
    compared = {"best peer": best or "", "against it": str(each.lead(best)) if best else ""}
    return {**row, **compared, "splits": len(each.lines[OURS])}


def _tally(groups: dict[str, list[Measured]], peer: str | None) -> dict[str, Any]:
    """Count wins, draws and losses against a peer; None for whichever is the best of a set."""
    row: dict[str, Any] = {"against": peer or "the best of each set"}
    for name, group in groups.items():
        found = [each.outcome(at) for each in group if (at := peer or each.best_peer())]
        counts = [sum(outcome == kind for outcome in found) for kind in ("win", "draw", "loss")]
        row[f"{name}: wins, draws, losses"] = ", ".join(map(str, counts))
    return row


def _mean_ranks(name: str, group: Sequence[Measured]) -> dict[str, Any] | None:
    # A peer that has been measured on fewer splits must not hide the ranks of the others on these.
    n_measured = {name: sum(len(each.shared(name)) for each in group) for name in (OURS, *PEERS)}
    competitors = [name for name, n_splits in n_measured.items() if n_splits >= max(1, MOST * n_measured[OURS])]
    ranks = [found for each in group if (found := each.ranks(competitors))]
    if not ranks:
        return None
    means = {competitor: round(float(np.mean([each[competitor] for each in ranks])), 2) for competitor in ranks[0]}
    return {"sets": name, "measured": len(ranks), **means}


def _pace(measured: list[Measured], name: str) -> dict[str, Any]:
    found = [line for each in measured for line in each.lines[name].values()]
    speeds = [line.rows_per_second for line in found if line.rows_per_second]
    return {
        "competitor": name,
        "seconds": round(float(np.median([line.seconds for line in found])), 1) if found else None,
        "rows/s": round(float(np.median(speeds))) if speeds else None,
    }


def _cost(each: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {"set": each.one.name}
    own = list(each.lines[OURS].values())
    for stage in ("pretrain", "train", "evaluate", "export"):
        minutes = [line.minutes[stage] for line in own if stage in line.minutes]
        row[f"{stage}, min"] = round(float(np.mean(minutes)), 2) if minutes else None
    row["a peer's search, s"] = max((line.rung for line in each.lines["LightGBM"].values()), default=None)
    for name in (OURS, "LightGBM"):
        speeds = [line.rows_per_second for line in each.lines[name].values() if line.rows_per_second]
        row[f"{name}, rows/s"] = round(float(np.median(speeds))) if speeds else None
    return row


def _targets(groups: dict[str, list[Measured]]) -> list[Target]:
    ranks = {name: _mean_ranks(name, group) for name, group in groups.items()}
    every, targets = groups["all"], []
    # Being before the own baseline alone is no rank among what a person would have picked.
    if (found := ranks["all"]) and found.keys() & TUNED.keys():
        order = sorted((name for name in (OURS, *PEERS) if name in found), key=lambda name: found[name])
        first = f"{order[0]} {found[order[0]]}, {order[1]} {found[order[1]]}"
        measured = first if order[0] == OURS else f"{first}; ours {found[OURS]}"
        met = order[0] == OURS
        targets.append(Target(name="breadth: first in mean rank", wanted="first", measured=measured, met=met))
    compared = [outcome for each in every if (best := each.best_peer()) and (outcome := each.outcome(best))]
    within = sum(outcome != "loss" for outcome in compared)
    share = f"{within} of {len(compared)}"
    name = "breadth: sets within the interval of the best peer, or above"
    targets.append(Target(name=name, wanted="9 of 10", measured=share, met=within >= 0.9 * len(compared)))
    behind = [each.one.name for each in every if each.outcome("own baseline") == "loss"]
    name = "breadth: sets behind the own baseline by more than noise"
    targets.append(Target(name=name, wanted="none", measured=", ".join(behind) or "none", met=not behind))
    if (seen := ranks["seen"]) and (unseen := ranks["unseen"]) and seen.keys() == unseen.keys():  # of the same peers
        measured = f"mean rank {unseen[OURS]} beside {seen[OURS]}"
        met = bool(unseen[OURS] <= seen[OURS] + 0.5)
        name = "breadth: on the sets that nothing was chosen on as on the others"
        targets.append(Target(name=name, wanted="within half a rank", measured=measured, met=met))
    return targets


def _notes(schedule: Schedule, measured: list[Measured]) -> list[str]:
    own = [line for each in measured for line in each.lines[OURS].values()]
    old = sum(line.revision != schedule.code for line in own)
    notes = [
        f"{len(measured)} sets, {len(own)} trainings of ours"
        + (f", {old} of them of an earlier state of the code." if old else ", all of the same code."),
        "A figure is the mean over the splits with the reach of its 95 % interval over them. Within a column it varies "
        "from split to split more than between columns: 'against it' compares on the same draws of the test rows.",
    ]
    pins = (SCRIPTS / "breadth.txt").read_text().splitlines()
    libraries = ("lightgbm", "catboost", "autogluon-tabular", "optuna", "scikit-learn")
    versions = ", ".join(pin.replace("==", " ") for pin in pins if pin.partition("==")[0] in libraries)
    notes.append(f"Peers: {versions}.")
    missing = {name: len(own) - sum(len(each.shared(name)) for each in measured) for name in PEERS}
    if any(missing.values()):
        absent = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
        notes.append(f"Splits on which a peer has not been measured: {absent}.")
    elsewhere = sum(
        line.machine != each.lines[OURS][split].machine
        for each in measured
        for name in (*TUNED, *AUTOGLUON)
        for split, line in each.lines[name].items()
    )
    if elsewhere:
        notes.append(f"Figures of peers that another machine has measured than ours: {elsewhere}.")
    if single := sum(not line.resampled for line in own):
        notes.append(
            f"Of {single} splits no draws of the test rows were kept: wins and losses by them are by the sign."
        )
    unseen = "; ".join(f"{name}: {reason}" for name, reason in UNSEEN.items())
    return [*notes, f"Nothing was chosen on, with what each stands for: {unseen}."]
