"""Say from a series of nights, one look after the other, whether their mean has moved: confidence sequences by betting.

A bet on each night wins where the night speaks against the mean that is assumed, and loses elsewhere; what is won from
1 on is the evidence. Whoever looks every night is misled no more often than by one look: where the assumption holds,
the chance that the evidence ever reaches 1 / a is at most a. Clipped, so that one night decides nothing.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), section 4;
of a start that is not known, the largest evidence of many starts: Shin, Ramdas and Rinaldo, "E-detectors" (2022).
"""

import numpy as np

STAKES = (0.2, 0.5, 0.9)
"""Shares of what may be staked at most such that nothing is lost for good; the evidence is the mean over them."""
N_FIRST = 14
"""First nights of a champion, with which later ones are compared: two weeks, so that each weekday counts twice."""
TOLERANCE = 0.75
"""A loss up to so many standard deviations of the first nights is none."""
BEST, WORST = 1.0, 3.0
"""Standard deviations above and below the first nights' mean, beyond which a night counts as one that is so far off."""
N_STARTS = 28
"""A loss is looked for from each of the last so many nights on."""
WANTED = 50.0
"""Evidence of a loss that is told: by simulation with 90 nights, less than 1 % of series without one reach it, and 5 %
where each night resembles the one before (correlation 0.3)."""
SMALLEST_DEVIATION = 0.005
"""Of the first nights, as a share of their mean: smaller differences concern nobody."""
N_SCALE = 3
"""Differences from which the first scale is taken, on which no bet is made."""
RANGE = 1.5
"""A difference counts at most as so many of the differences before it."""


def evidence_of_loss(later: np.ndarray, mean: float, deviation: float) -> float:
    """Return how strongly later nights speak for a loss beyond the tolerance, since any of the last nights.

    More is better in `later`. Shapes: float [n]; mean and deviation are those of the first nights.

    >>> evidence_of_loss(np.array([0.78, 0.80, 0.82]), 0.80, 0.02)
    1.0
    >>> evidence_of_loss(np.full(12, 0.76), 0.80, 0.02) > WANTED
    True
    """
    if not len(later):
        return 1.0
    distance = np.clip((later - mean) / max(deviation, 1e-12), -WORST, BEST)
    gains = np.log1p(np.outer(np.divide(STAKES, BEST + TOLERANCE), -distance - TOLERANCE))
    since = np.cumsum(gains[:, ::-1], axis=1)[:, :N_STARTS]  # of the last night, the last two, ...
    return round(max(1.0, float(np.exp(since).mean(axis=0).max())), 3)


def evidence_of_lead(differences: np.ndarray, lead: float = 0.0) -> float:
    """Return how strongly differences speak for a mean above `lead`, from the first of them on.

    The scale of each bet is that of the differences before it, so that it knows nothing of its own night.
    Shapes: float [n].
    """
    if len(differences) <= N_SCALE:
        return 1.0
    before = np.arange(1, len(differences))
    scale = RANGE * np.sqrt(np.cumsum(np.square(differences))[:-1] / before)[N_SCALE - 1 :].clip(min=1e-12)
    bets = np.clip((differences[N_SCALE:] - lead) / scale, -1.0, 1.0)
    return float(np.exp(np.log1p(np.outer(STAKES, bets)).sum(axis=1)).mean())


def lower_end(differences: np.ndarray, chance: float = 0.05) -> float | None:
    """Return the lower end of the confidence sequence of the mean difference; None where too few say anything.

    `chance` is how often, over all looks, it may lie above the mean. Shapes: float [n].

    >>> lower_end(np.array([0.01, 0.02] * 10)) > 0
    True
    >>> lower_end(np.array([0.01, -0.01] * 10)) > 0
    False
    """
    if len(differences) <= N_SCALE:
        return None
    width = RANGE * float(np.abs(differences).max())
    low, high = float(differences.mean()) - width, float(differences.mean()) + width
    if not width or evidence_of_lead(differences, low) < 1 / chance:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        if evidence_of_lead(differences, middle) >= 1 / chance:
            low = middle
        else:
            high = middle
    return low
