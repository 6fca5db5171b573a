"""The task next_item: a list of the items that are most likely next, the best first, and a score of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from model.heads.base import Metric
from model.heads.multiclass import Multiclass
from model.heads.prediction_rule import PredictionRule

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from model.target import Target

TOP = 10
"""Items of a list unless another number is asked for."""
IS_NEW = "is_new"
"""The column of a night that says whether a row has no history."""


class NextItem(Multiclass):
    """A logit for each item, of which the graph of the network returns the highest alone.

    Labels and loss are those of one of many classes; scores are `model.heads.item_lists`.
    """

    task = "next_item"
    answers_lists = True
    has_companion = False
    one_class_per_row = False
    has_probabilities = False
    has_costs = False
    max_classes = 2**24
    metric_names = ("ndcg", "hit_rate", "mrr", "coverage")
    probability_metrics = ()
    lower_is_better = ()
    plots = ("hits_by_place",)
    list_columns: ClassVar[Mapping[str, str]] = {"items": "str", "scores": "float32"}

    def classes(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return the different labels in the order of a hash of them.

        Equal scores are listed in the order of the classes: neither the alphabet nor a running number, which is low
        where an item is old and popular, shall decide about them.
        """
        from hashlib import blake2b

        return tuple(sorted(set(labels) - {""}, key=lambda name: blake2b(name.encode()).digest()))

    def class_weights(self, labels: Tensor, n_outputs: int) -> None:
        """Return None: an item counts as often as it is the next one."""

    def score_shape(self, n_classes: int) -> tuple[int, ...]:
        """Return number and score for each place of a list of TOP items."""
        return (min(TOP, n_classes), 2)

    def lists(self, logits: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Return the numbers of the likeliest items and their shares; NONE and 0 where a list ends earlier.

        A logit of minus infinity leaves an item out: of the list, and of what the shares sum to.
        Shapes: float32 [b, C] -> int64 [b, k], float32 [b, k].
        """
        is_left_out = logits.isinf()
        shares = logits.masked_fill(is_left_out, -1e30).softmax(-1).masked_fill(is_left_out, -1.0)
        scores, numbers = shares.topk(min(target.top, logits.shape[-1]))
        return numbers.masked_fill(scores < 0, -1), scores.clamp(min=0)

    def activation(self, logits: Tensor, target: Target) -> Tensor:  # type: ignore[override]
        """Return the lists. Shapes: [b, C] -> [b, k, 2]."""
        import torch

        numbers, scores = self.lists(logits, target)
        return torch.stack([numbers.float(), scores], -1)

    def metrics(self, rule: float | PredictionRule) -> dict[str, Metric]:
        """Return what lists are worth; their length is that of all metrics.

        ndcg: 1 for the next item in the first place, 1 / log2(place + 1) further down, 0 if it is not there.
        Source: Jarvelin and Kekalainen 2002, "Cumulated gain-based evaluation of IR techniques", one item relevant.
        mrr: 1 / place. hit_rate: whether it is there. coverage: the share of the items that are next somewhere which
        some list has.
        """
        import numpy as np

        from model.heads.item_lists import numbers_of, ranks

        def mean_of(gain: Callable[[int], np.ndarray]) -> Metric:
            return lambda y, lists: float(np.append(gain(lists.shape[1]), 0.0)[ranks(y, lists)].mean())

        def coverage(y: np.ndarray, lists: np.ndarray) -> float:
            return float(np.isin(np.unique(y), numbers_of(lists)[numbers_of(lists) >= 0]).mean())

        return {
            "ndcg": mean_of(lambda k: 1 / np.log2(np.arange(k) + 2)),
            "hit_rate": mean_of(np.ones),
            "mrr": mean_of(lambda k: 1 / (np.arange(k) + 1)),
            "coverage": coverage,
        }

    def per_class(
        self, y: np.ndarray, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> None:
        """Return None: items are too many for a report."""

    def night_columns(
        self, scores: np.ndarray, classes: Sequence[str], rule: float | PredictionRule
    ) -> dict[str, np.ndarray]:
        """Return the first item, all items of the list and their scores; fewer, or None, where items are left out."""
        import numpy as np

        from model.heads.item_lists import NONE, numbers_of

        names = np.array([*classes, None], dtype=object)
        columns = {name: np.empty(len(scores), object) for name in ("prediction", *self.list_columns)}
        for row, (numbers, found) in enumerate(zip(numbers_of(scores), scores[..., 1], strict=True)):
            is_item = numbers != NONE
            columns["items"][row] = names[numbers[is_item]].tolist()
            columns["scores"][row] = found[is_item].tolist()
            columns["prediction"][row] = names[numbers[0]] if len(numbers) else None
        return columns

    def scores_of_night(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the lists that a night's columns hold, and the items that these are of. Shapes: [n, k, 2]."""
        import numpy as np

        from model.heads.item_lists import NONE, joined

        items = list(columns["items"])
        classes = self.classes(name for row in items for name in row)
        number = {name: position for position, name in enumerate(classes)}
        n_places = max([1, *map(len, items)])
        numbers, scores = np.full((len(items), n_places), NONE), np.zeros((len(items), n_places))
        for row, (names, found) in enumerate(zip(items, columns["scores"], strict=True)):
            numbers[row, : len(names)] = [number[name] for name in names]
            scores[row, : len(names)] = found
        return joined(numbers, scores), classes

    def night_score(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the score of each list's first item, 0 for an empty list. Shapes: [n]."""
        import numpy as np

        return np.array([row[0] if len(row) else 0.0 for row in columns["scores"]], float)
