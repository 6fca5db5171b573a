"""Fitted preprocessing: a table of columns becomes arrays the network reads.

A table maps column names to arrays of one length: `category` and `text` hold str or None, `number`
and `context` float64 with NaN, `time` datetime64[s] with NaT. Everything is fitted on the rows given to `fit` and on
nothing else; which rows those are is the caller's business. Padding happens later, in `model.features.batches`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from model.features.bins import bin_edges
from model.features.encoded import Encoded, Sizes
from model.features.subwords import bags, join, load_tokenizer, special_ids, tokenise, train_tokenizer
from model.settings import COLUMN_KINDS

Table = Mapping[str, np.ndarray]

MISSING, UNKNOWN, FIRST_KNOWN = 0, 1, 2
MAX_CATEGORIES = 50_000
MAX_COUNTED = 20 * MAX_CATEGORIES
"""Values of one column that are counted at once: where most rows have one of their own, memory must not grow."""
MAX_FITTED_ROWS = 1_000_000
"""Rows that decide scales, bins and cycles; more would not move a quantile by what matters."""
MAX_MAGNITUDE = 1e30
"""A number beyond, as it came or scaled, counts as this large: single precision holds it and its differences."""
MAX_Z = 3.0
"""A context further from the mean counts as this far, so that a freak cannot drive a score anywhere."""
PERIOD_DAYS = (1, 7, 365)
"""Days after which minute of day, day of week and day of year have been through all their values."""
TIME_PARTS = len(PERIOD_DAYS)


@dataclass(frozen=True, kw_only=True)
class NumberScale:
    """How one number column is brought to a common scale, and where its bins lie on that scale."""

    centre: float
    """Median of the fitted values."""
    scale: float
    """Their interquartile range, or their standard deviation where that is zero."""
    edges: tuple[float, ...]
    """Bin edges after scaling, strictly increasing."""


@dataclass(frozen=True, kw_only=True)
class ContextScale:
    """How one context column is brought to a common scale."""

    centre: float
    """Mean of the fitted values."""
    deviation: float
    """Their standard deviation, or 1 where that is zero."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Everything fitted that turns a table into `Encoded`."""

    kinds: dict[str, str]
    """Column name to kind, in the order in which columns are read."""
    vocabularies: dict[str, tuple[str, ...]]
    """Known values per category column; the first has slot 2."""
    numbers: dict[str, NumberScale]
    """Scale and bins per number column; a number beyond the outermost bins reads as their ends."""
    contexts: dict[str, ContextScale] = field(default_factory=dict)
    """Scale per context column."""
    cycles: dict[str, tuple[int, ...]]
    """Per time column the parts that are read, as numbered by `time_parts`."""
    max_tokens: int
    """Text tokens per window at most, separators included."""
    max_windows: int = 1
    """Windows per row at most."""
    wide_tokens: int = 0
    """Tokens of each text that go into a row's bag; 0 for no bags."""
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    """Subwords; None without text columns."""

    @classmethod
    def fit(
        cls,
        kinds: dict[str, str],
        rows: Table | Iterable[Table],
        target: np.ndarray | None,
        task: str,
        *,
        max_tokens: int,
        max_windows: int = 1,
        wide_tokens: int = 0,
        tokenizer: Path | None = None,
    ) -> "Features":
        """Fit vocabularies, scales, bins and, unless one is given, a tokenizer on `rows`.

        `rows` is a table, or pieces of one that can be iterated several times and need not fit into memory. Words are
        counted in all rows; of more than MAX_FITTED_ROWS a fixed sample decides scales, bins and cycles.

        Shapes: target [n] or [n, C]; NaN marks rows without a label, which then shape no bins; None for none.
        Raises: ValueError for an unknown kind, a column that is not there, or no column at all.
        """
        pieces = [rows] if isinstance(rows, Mapping) else rows
        counts: dict[str, Counter[str | None]] = {name: Counter() for name in _of_kind(kinds, "category")}
        n_rows = 0
        for piece in pieces:
            _check(kinds, piece)
            n_rows += len(piece[next(iter(kinds))])
            for name, count in counts.items():
                count.update(piece[name].tolist())
                if len(count) > MAX_COUNTED:  # the rarest of so many would not be kept anyway
                    counts[name] = Counter(dict(count.most_common(MAX_COUNTED // 2)))
        chosen = chosen_rows(n_rows, MAX_FITTED_ROWS)
        sample = _sample(
            pieces, [name for kind in ("number", "time", "context") for name in _of_kind(kinds, kind)], chosen
        )
        truth = None if target is None else target[chosen]
        texts = _of_kind(kinds, "text")
        return cls(
            kinds=dict(kinds),
            vocabularies={name: _vocabulary(count) for name, count in counts.items()},
            numbers={name: _number_scale(sample[name], truth, task) for name in _of_kind(kinds, "number")},
            contexts={name: _context_scale(sample[name]) for name in _of_kind(kinds, "context")},
            cycles={name: _cycles(sample[name]) for name in _of_kind(kinds, "time")},
            max_tokens=max_tokens,
            max_windows=max_windows if texts else 1,
            wide_tokens=wide_tokens if texts else 0,
            tokenizer=_fitted_tokenizer(tokenizer, pieces, texts) if texts else None,
        )

    @property
    def sizes(self) -> Sizes:
        """What a network for these features must know."""
        ids: dict[str, int] = {}
        if self.tokenizer is not None:
            known = special_ids(self.tokenizer)
            ids = {f"{name}_id": known[name] for name in ("cls", "sep", "pad", "mask")}
        return Sizes(
            n_categories=tuple(FIRST_KNOWN + len(known) for known in self.vocabularies.values()),
            edges=tuple(number.edges for number in self.numbers.values()),
            cycles=tuple(self.cycles.values()),
            n_texts=len(_of_kind(self.kinds, "text")),
            n_subwords=1 if self.tokenizer is None else self.tokenizer.get_vocab_size(),
            max_tokens=self.max_tokens,
            n_context=len(self.contexts),
            **ids,
        )

    def encode(self, table: Table) -> Encoded:
        """The table as arrays, row for row.

        Raises: ValueError for a column that is not there.
        """
        _check(self.kinds, table)
        n = len(table[next(iter(self.kinds))])
        categories = [_slots(table[name], known) for name, known in self.vocabularies.items()]
        numbers = [_scaled(table[name], number) for name, number in self.numbers.items()]
        times = [time_parts(table[name]) for name in _of_kind(self.kinds, "time")]
        context = [_standardised(table[name], scale) for name, scale in self.contexts.items()]
        return Encoded(
            categories=_stack(categories, (n, 0), np.int64),
            numbers=_stack(numbers, (n, 0), np.float32),
            times=_stack(times, (n, 0, TIME_PARTS), np.float32),
            context=_stack(context, (n, 0), np.float32),
            **self._texts(table, n),
        )

    def _texts(self, table: Table, n: int) -> dict[str, np.ndarray]:
        """The fields of `Encoded` that come from text."""
        if self.tokenizer is None:
            return {"text": np.empty(0, np.int32), "offsets": np.zeros(n + 1, np.int64)}
        columns = [table[name] for name in _of_kind(self.kinds, "text")]
        pieces = tokenise(self.tokenizer, columns, max(self.max_windows * self.max_tokens, self.wide_tokens))
        sep_id = special_ids(self.tokenizer)["sep"]
        text, offsets, window_offsets = join(pieces, self.max_tokens, sep_id, self.max_windows)
        texts = {"text": text, "offsets": offsets}
        if self.max_windows > 1:
            texts["window_offsets"] = window_offsets
        if self.wide_tokens:
            named = ("bag", "bag_weights", "bag_offsets")
            bagged = [column.beginning(max(self.max_tokens, self.wide_tokens)) for column in pieces]
            texts |= zip(named, bags(bagged, self.max_tokens, self.tokenizer.get_vocab_size()), strict=True)
        return texts

    def save(self, folder: Path) -> None:
        """Write `features.json` and, with text columns, `tokenizer.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "kinds": self.kinds,
            "max_tokens": self.max_tokens,
            "max_windows": self.max_windows,
            "wide_tokens": self.wide_tokens,
            "vocabularies": self.vocabularies,
            "numbers": {name: asdict(number) for name, number in self.numbers.items()},
            "contexts": {name: asdict(scale) for name, scale in self.contexts.items()},
            "cycles": self.cycles,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (folder / "features.json").write_text(text, "utf-8")
        if self.tokenizer is not None:
            self.tokenizer.save(str(folder / "tokenizer.json"))

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """Read back what `save` wrote."""
        content = json.loads((folder / "features.json").read_text("utf-8"))
        numbers = {
            name: NumberScale(**{**number, "edges": tuple(number["edges"])})
            for name, number in content["numbers"].items()
        }
        has_text = "text" in content["kinds"].values()
        return cls(
            kinds=content["kinds"],
            vocabularies={name: tuple(known) for name, known in content["vocabularies"].items()},
            numbers=numbers,
            # Models of before context columns, windows and the linear model of subwords have none of these.
            contexts={name: ContextScale(**scale) for name, scale in content.get("contexts", {}).items()},
            cycles={name: tuple(parts) for name, parts in content["cycles"].items()},
            max_tokens=content["max_tokens"],
            max_windows=content.get("max_windows", 1),
            wide_tokens=content.get("wide_tokens", 0),
            tokenizer=load_tokenizer(folder / "tokenizer.json") if has_text else None,
        )


def _check(kinds: dict[str, str], table: Table) -> None:
    mistakes = [
        f"column {name} must be of kind {', '.join(COLUMN_KINDS)}, got {kind!r}"
        for name, kind in kinds.items()
        if kind not in COLUMN_KINDS
    ]
    missing = [name for name in kinds if name not in table]
    if missing:
        mistakes.append(f"table must have the columns {', '.join(missing)}, got {', '.join(table) or 'none'}")
    if not set(kinds.values()) - {"context"}:
        mistakes.append("kinds must name at least one column that is no context, got none")
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _of_kind(kinds: dict[str, str], kind: str) -> list[str]:
    return [name for name, its in kinds.items() if its == kind]


def chosen_rows(n_rows: int, most: int) -> np.ndarray:
    """Positions of the rows that are fitted on, ascending: all, or of more than `most` the same sample every time."""
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).choice(n_rows, most, replace=False, shuffle=False))


def _sample(pieces: Iterable[Table], names: list[str], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The named columns of the chosen rows."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    first = 0
    for piece in pieces if names else ():
        n_rows = len(piece[names[0]])
        here = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + n_rows)] - first
        for name, columns in found.items():
            columns.append(piece[name][here])
        first += n_rows
    return {name: np.concatenate(columns) for name, columns in found.items()}


def _vocabulary(counts: Counter[str | None]) -> tuple[str, ...]:
    """Known values, the most frequent first; ties by name, so that row order does not matter."""
    known = {value: count for value, count in counts.items() if value is not None}
    by_frequency = sorted(known, key=lambda value: (-known[value], value))
    return tuple(by_frequency[:MAX_CATEGORIES])


def _number_scale(column: np.ndarray, target: np.ndarray | None, task: str) -> NumberScale:
    column = finite(column)
    known = column[~np.isnan(column)]
    low, centre, high = np.quantile(known, [0.25, 0.5, 0.75]) if known.size else (0.0, 0.0, 1.0)
    scale = (high - low) or (known.std() if known.size else 0.0) or 1.0
    edges = bin_edges(((column - centre) / scale).clip(-MAX_MAGNITUDE, MAX_MAGNITUDE), target, task)
    return NumberScale(centre=float(centre), scale=float(scale), edges=tuple(map(float, edges)))


def _context_scale(column: np.ndarray) -> ContextScale:
    known = finite(column)[np.isfinite(column)]
    centre, deviation = (float(known.mean()), float(known.std())) if known.size else (0.0, 0.0)
    return ContextScale(centre=centre, deviation=deviation or 1.0)


def _cycles(column: np.ndarray) -> tuple[int, ...]:
    """The cycles that the rows have been through at least once.

    Of any other a network would learn a stretch and guess the rest, wildly: what it makes of June it has
    only ever seen in spring.
    """
    days = column.astype("datetime64[D]")
    days = days[~np.isnat(days)]
    n_days = int((days.max() - days.min()).astype(int)) + 1 if days.size else 0
    return tuple(part for part, period in enumerate(PERIOD_DAYS) if n_days >= period)


def _fitted_tokenizer(path: Path | None, pieces: Iterable[Table], names: list[str]) -> Tokenizer:
    if path is not None:
        return load_tokenizer(path)
    return train_tokenizer(text for name in names for piece in pieces for text in piece[name] if text)


class _Slots(dict[str | None, int]):
    def __missing__(self, value: str | None) -> int:
        return UNKNOWN


def _slots(column: np.ndarray, known: tuple[str, ...]) -> np.ndarray:
    slots = _Slots(zip(known, range(FIRST_KNOWN, FIRST_KNOWN + len(known)), strict=True))
    slots[None] = MISSING
    return np.fromiter(map(slots.__getitem__, column.tolist()), np.int64, len(column))


def _scaled(column: np.ndarray, number: NumberScale) -> np.ndarray:
    return ((finite(column) - number.centre) / number.scale).clip(number.edges[0], number.edges[-1]).astype(np.float32)


def _standardised(column: np.ndarray, scale: ContextScale) -> np.ndarray:
    """In standard deviations from the mean, at most MOST_DEVIATIONS; a missing value lies at the mean."""
    deviations = (finite(column) - scale.centre) / scale.deviation
    return np.nan_to_num(deviations).clip(-MAX_Z, MAX_Z).astype(np.float32)


def finite(column: np.ndarray) -> np.ndarray:
    """The numbers, at most LARGEST; NaN for what is none. Shapes: float64 [n] -> the same."""
    return np.where(np.isfinite(column), column, np.nan).clip(-MAX_MAGNITUDE, MAX_MAGNITUDE)


def time_parts(column: np.ndarray) -> np.ndarray:
    """Shapes: datetime64[s] [n] -> float32 [n, 3]."""
    seconds = column.astype("datetime64[s]")
    days, years = seconds.astype("datetime64[D]"), seconds.astype("datetime64[Y]")
    minute_of_day = (seconds - days).astype(np.int64) / 60
    day_of_week = (days.astype(np.int64) + 3) % 7  # the epoch was a Thursday
    day_of_year = (days - years.astype("datetime64[D]")).astype(np.int64)
    parts = np.stack([minute_of_day, day_of_week, day_of_year], axis=1).astype(np.float32)
    parts[np.isnat(seconds)] = np.nan
    return parts


def _stack(columns: list[np.ndarray], shape_of_none: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.empty(shape_of_none, dtype)
