"""Print what a replay has come to: counts, times, and each policy's mean metric beside the champion's."""

import numpy as np

from model.evaluation.paired import Difference
from tasks.commands.simulation.contracts import Outcome, Replay
from tasks.commands.simulation.policies import (
    CHAMPION,
    decays,
    false_alarms,
    judged,
    lead,
    mean_of,
    rollbacks,
    series_of,
    spread,
    spread_between_models,
)


def summary(replay: Replay) -> str:
    """Return the table that stands at the end of a simulation."""
    lines = [*counts(replay), ""]
    series = series_of(replay)
    lines.append(f"mean {replay.metric} of {len(series[CHAMPION])} nights, and by how much the champion is better")
    for name, values in series.items():
        mean = mean_of(values)
        if mean is None:
            lines.append(f"  {name:<18}  too few nights")
            continue
        shown = f"  {name:<18}  {mean.value:.4f} ({mean.low:.4f} to {mean.high:.4f})"
        led = lead(series[CHAMPION], values, lower_is_better=replay.lower_is_better) if name != CHAMPION else None
        lines.append(shown + (f"  {with_interval(led)}" if led else ""))
    lines += ["", *spreads(replay), *verdicts(replay)]
    return "\n".join(lines).rstrip()


def counts(replay: Replay) -> list[str]:
    """Return how many steps came to what, and what they took."""
    nights, retrains = replay.of_kind("night"), replay.of_kind("retrain")
    n_stopped = sum(each.state == "stopped" for each in nights)
    states = [each.state for each in retrains]
    quarantined = sum(each.quarantined for each in nights)
    return [
        f"nights              {len(nights)}, of which {len(nights) - n_stopped} published and {n_stopped} stopped; "
        f"{sum(each.rows for each in nights):,} predictions, {quarantined:,} rows in quarantine",
        f"retrains            {len(retrains)}: {states.count('promoted')} promoted, {states.count('rejected')} "
        f"refused, {len(states) - states.count('promoted') - states.count('rejected')} other",
        f"rollbacks           {len(rollbacks(replay))}",
        f"decay               {len(decays(replay))} nights asked for a training out of turn",
        f"false alarms        {len(false_alarms(replay))} nights stopped though nothing was wrong with the source",
        f"seconds of a night  {seconds(nights)}",
        f"seconds of a train  {seconds(retrains)}",
        f"minutes in all      {sum(each.seconds for each in replay.outcomes) / 60:.1f}",
    ]


def seconds(outcomes: list[Outcome]) -> str:
    """Return the median and the longest of what steps took; of nights it is the time until they are ready."""
    if not outcomes:
        return "none"
    taken = [each.seconds for each in outcomes]
    return f"{np.median(taken):.1f} (longest {max(taken):.1f})"


def spreads(replay: Replay) -> list[str]:
    """Return how far the metric moves from night to night, and how far the models are apart."""
    series = series_of(replay)
    champion = series[CHAMPION]
    lines = [f"standard deviation of {replay.metric} from night to night: {spread(champion):.4f}"]
    for name, values in series.items():
        common = champion.keys() & values.keys()
        if name != CHAMPION and common:
            lines.append(
                f"  of the paired difference to {name}: {spread({n: champion[n] - values[n] for n in common}):.4f}"
            )
    if (between := spread_between_models(judged(replay))) is not None:
        lines.append(f"  of the true leads of challengers over their champion: {between:.4f}")
    return lines


def verdicts(replay: Replay) -> list[str]:
    """Return what the gates said of each challenger, beside its lead on all later nights."""
    found = judged(replay)
    if not found:
        return []
    lines = ["", "challenger  gates             lead over the champion that it met, on all later nights"]
    for each in found:
        later = with_interval(each.lead) if each.lead else "too few nights"
        lines.append(f"{each.outcome.as_of}  {each.outcome.state:<16}  {later}")
    wrong = [each for each in found if each.lead and (each.outcome.state == "promoted") == (each.lead.high < 0)]
    wrong = [each for each in wrong if each.outcome.state == "promoted" or (each.lead and each.lead.low > 0)]
    lines.append(f"surely wrong in hindsight (interval on the other side of 0): {len(wrong)} of {len(found)}")
    return lines


def with_interval(difference: Difference) -> str:
    """Return a difference with its interval, for a table."""
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
