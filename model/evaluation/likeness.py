"""Measure how like real rows rows are that a model made up: can they be told apart, and what is learnt from them worth.

None of it says anything of privacy: a row that is no copy may tell of a person all the same.

Shape legend: n rows of real and of made ones together, m test rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from model.evaluation.metrics import CONFIDENCE
from model.features.fitting import Table
from model.features.kinds import kind_class

N_FOLDS = 3
SECONDS_PER_WEEK = 7 * 86_400
N_RESAMPLES = 200
MAX_CLASSES = 30
"""Values of a column up to which it is learnt as a class: trees take as many as these at every step."""
N_BINS = 20
N_VALUES = 8
"""Values of a column of words whose shares are compared one by one."""
OUTERMOST = 0.005
"""Share of cells at either end that the bins of numbers leave to the outermost ones."""
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ToldApart:
    """How well boosted trees tell rows from real ones, none of which they learnt from."""

    auc: float
    """0.5 where they cannot."""
    interval_95: Interval
    """With rows as observations."""


@dataclass(frozen=True, kw_only=True)
class Usefulness:
    """What trees that learnt one column from the others are worth on rows that neither has seen."""

    column: str
    metric: str
    """accuracy, or r2 of a number."""
    from_made: float
    """Learnt from made rows."""
    from_real: float
    """Learnt from as many training rows."""
    constant: float
    """The commonest value, or the mean, of these training rows."""
    loss_interval_95: Interval
    """Of how much less those from made rows have than those from real ones."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often a value, or numbers of a bin, occur."""

    value: str
    real: float
    made: float


@dataclass(frozen=True, kw_only=True)
class Marginal:
    """One column by itself, among held-out and among made rows."""

    column: str
    difference: float
    """Half the sum of the shares' differences: 0 where they are the same, 1 where no value is shared."""
    shares: tuple[Share, ...]


def distinguishability(kinds: Mapping[str, str], real: Table, other: Table, seed: int) -> ToldApart | None:
    """Return the AUC of boosted trees that tell other rows from real ones, none of which they learnt from.

    0.5 is what rows of the same source have. As many of either count; with its 95 % bootstrap interval. None of too few
    rows. Source: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests" (2017).
    """
    from model.heads.measures import auc

    if (judged := judge(kinds, real, other, seed)) is None:
        return None
    is_other, scores = judged
    interval = _bootstrap(lambda kept: auc(is_other[kept], scores[kept]), len(scores), seed, is_other)
    return ToldApart(auc=auc(is_other, scores), interval_95=interval)


def judge(kinds: Mapping[str, str], real: Table, other: Table, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return which rows are other ones, first as many real ones, and how surely trees take each for one; None of few.

    Shapes: int64 [2 n], float64 [2 n].
    """
    from scipy.stats import rankdata
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    from model.evaluation.baseline import TreeInputs

    least = min(_n_rows(real), _n_rows(other))
    if least < N_FOLDS:
        return None
    real, other = (_sample(table, least, seed) for table in (real, other))
    table, is_other = _together(real, other), np.repeat([0, 1], least)
    inputs, scores = TreeInputs(dict(kinds)), np.empty(2 * least)
    rows = inputs.fit_transform(table)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    for learnt, left_out in folds.split(rows, is_other):
        trees = HistGradientBoostingClassifier(categorical_features=inputs.is_category, random_state=seed)
        found = trees.fit(rows[learnt], is_other[learnt]).predict_proba(rows[left_out])[:, 1]
        scores[left_out] = rankdata(found) / len(found)  # the trees of one fold are surer than those of another
    return is_other, scores


def without_dates(table: Table) -> Table:
    """Return rows whose times are all of one week: weekday and time of day are kept.

    Held-out rows are of later days than those that were learnt from, and by that alone they would be told apart.

    >>> without_dates({"at": np.array(["2024-02-29T12:30", "NaT"], "datetime64[s]")})["at"].astype(str).tolist()
    ['1970-01-01T12:30:00', 'NaT']
    """
    return {name: _in_one_week(cells) if cells.dtype.kind == "M" else cells for name, cells in table.items()}


def _in_one_week(times: np.ndarray) -> np.ndarray:
    seconds = times.astype("datetime64[s]").astype(np.int64) % SECONDS_PER_WEEK
    return np.where(np.isnat(times), np.datetime64("NaT"), seconds.astype("datetime64[s]"))


def learnable_column(kinds: Mapping[str, str], real: Table) -> str | None:
    """Return the column by which rows are measured: the words of fewest values, two at least, else the first number."""
    counts = {name: len({*real[name].tolist()} - {None}) for name, kind in kinds.items() if _reads_as(kind) == "labels"}
    few = [name for name, n in counts.items() if 2 <= n <= MAX_CLASSES]
    if few:
        return min(few, key=lambda name: counts[name])
    numbers = [name for name, kind in kinds.items() if _is_one_number(kind, real[name])]
    return next((name for name in numbers if len(np.unique(real[name][np.isfinite(real[name])])) > 1), None)


def usefulness(kinds: Mapping[str, str], real: Table, made: Table, held_out: Table, seed: int) -> Usefulness | None:
    """Return what is learnt of a column from made rows, beside as many real ones; None where no column can be learnt.

    Source: Esteban et al., "Real-valued (Medical) Time Series Generation with Recurrent Conditional GANs" (2017),
    section 4.2: train on synthetic, test on real.
    """
    from model.heads.measures import r2

    name = learnable_column(kinds, real)
    least = min(_n_rows(real), _n_rows(made))
    if name is None or not least:
        return None
    is_label = _reads_as(kinds[name]) == "labels"
    real, made = (_sample(_known(table, name), least, seed) for table in (real, made))
    held_out, others = _known(held_out, name), {each: kind for each, kind in kinds.items() if each != name}
    if not others or min(map(_n_rows, (real, made, held_out))) < N_FOLDS:
        return None
    y = held_out[name]
    answers = [_answers(others, table, name, held_out, seed, is_label=is_label) for table in (made, real)]
    if is_label:
        values, counts = np.unique(real[name].astype(str), return_counts=True)
        constant = np.full(len(y), values[counts.argmax()], object)
        value_of, metric = (lambda truth, found: float((truth == found).mean())), "accuracy"
    else:
        constant = np.full(len(y), real[name].mean())
        value_of, metric = r2, "r2"
    from_made, from_real, of_constant = (value_of(y, each) for each in (*answers, constant))
    return Usefulness(
        column=name,
        metric=metric,
        from_made=from_made,
        from_real=from_real,
        constant=of_constant,
        loss_interval_95=_bootstrap(
            lambda kept: value_of(y[kept], answers[1][kept]) - value_of(y[kept], answers[0][kept]), len(y), seed
        ),
    )


def _answers(kinds: dict[str, str], learnt: Table, name: str, asked: Table, seed: int, *, is_label: bool) -> np.ndarray:
    """Return what trees that learnt from rows say of a column of others. Shapes: [m]."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    from model.evaluation.baseline import TreeInputs

    inputs, y = TreeInputs(kinds), learnt[name].astype(str) if is_label else learnt[name]
    rows = inputs.fit_transform(learnt)
    if len(np.unique(y)) < 2:
        return np.full(_n_rows(asked), y[0], object if is_label else None)
    trees = (HistGradientBoostingClassifier if is_label else HistGradientBoostingRegressor)(
        categorical_features=inputs.is_category, random_state=seed
    )
    found: np.ndarray = trees.fit(rows, y).predict(inputs.transform(asked))
    return found


def marginals(kinds: Mapping[str, str], real: Table, made: Table) -> list[Marginal]:
    """Return each column by itself. Words have their commonest values, numbers and times bins; missing is one more."""
    return [_marginal(name, kind, real[name], made[name]) for name, kind in kinds.items()]


def _marginal(name: str, kind: str, real: np.ndarray, made: np.ndarray) -> Marginal:
    if _reads_as(kind) == "labels":
        names, codes = _coded_words(real, made)
    else:
        numbers = [kind_class(kind).plain_numbers(cells).astype(np.float64) for cells in (real, made)]
        spread = [len(np.unique(each[np.isfinite(each)])) > 1 for each in np.concatenate(numbers).T]
        place = spread.index(True) if any(spread) else 0  # of a time its hour, of a date its weekday
        names, codes = _coded_numbers(*(each[:, place] for each in numbers))
    shares = [np.bincount(each, minlength=len(names)) / max(1, len(each)) for each in codes]
    found = tuple(
        Share(value=value, real=float(one), made=float(other))
        for value, one, other in zip(names, *shares, strict=True)
        if one or other
    )
    return Marginal(column=name, difference=float(np.abs(shares[0] - shares[1]).sum() / 2), shares=found)


def _coded_words(real: np.ndarray, made: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    values, counts = np.unique([cell for cell in (*real, *made) if cell is not None], return_counts=True)
    order = np.lexsort((values, -counts))[:N_VALUES]
    names = [str(values[at]) for at in order]
    number = {name: at for at, name in enumerate(names)}
    codes = [
        np.array([len(names) + 1 if cell is None else number.get(cell, len(names)) for cell in cells], np.int64)
        for cells in (real, made)
    ]
    return [*names, "others", "missing"], codes


def _coded_numbers(real: np.ndarray, made: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    known = np.concatenate([cells[np.isfinite(cells)] for cells in (real, made)])
    low, high = np.quantile(known, [OUTERMOST, 1 - OUTERMOST]) if len(known) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
    codes = [
        np.where(np.isfinite(cells), np.searchsorted(edges[1:-1], np.nan_to_num(cells), "right"), N_BINS)
        for cells in (real, made)
    ]
    return [*(f"from {edge:.6g}" for edge in edges[:-1]), "missing"], codes


def _bootstrap(measure: Callable[[np.ndarray], float], n: int, seed: int, strata: np.ndarray | None = None) -> Interval:
    """Return the 95 % percentile interval where rows are drawn with replacement, of each stratum as many."""
    random, values = np.random.default_rng(seed), []
    parts = [np.arange(n)] if strata is None else [np.flatnonzero(strata == each) for each in np.unique(strata)]
    for _ in range(N_RESAMPLES):
        values.append(measure(np.concatenate([random.choice(part, len(part)) for part in parts])))
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _reads_as(kind: str) -> str:
    return kind_class(kind).reads_as


def _is_one_number(kind: str, cells: np.ndarray) -> bool:
    return _reads_as(kind) == "numbers" and cells.dtype.kind == "f" and kind_class(kind).has_quantiles


def _n_rows(table: Table) -> int:
    return len(next(iter(table.values())))


def _sample(table: Table, most: int, seed: int) -> Table:
    """Return at most so many rows, a fixed sample."""
    n = _n_rows(table)
    chosen = np.sort(np.random.default_rng(seed).choice(n, min(n, most), replace=False))
    return {name: cells[chosen] for name, cells in table.items()}


def _known(table: Table, name: str) -> Table:
    """Return the rows whose cell of a column is not missing."""
    known = np.array([cell is not None and cell == cell for cell in table[name]], bool)
    return {each: cells[known] for each, cells in table.items()}


def _together(*tables: Table) -> Table:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
