"""Say what metrics and gates mean, for somebody who sees the page for the first time."""

METRICS = {
    "auc": "how often a row that turns out yes has a higher score than one that turns out no: 0.5 is guessing, 1 is "
    "never wrong",
    "average_precision": "how many of the rows with the highest scores turn out yes, over all cuts: 1 is all of them",
    "accuracy": "the share of predictions that come true",
    "balanced_accuracy": "the share of predictions that come true, each class counting the same",
    "precision": "the share of predicted yes that come true",
    "recall": "the share of true yes that was predicted",
    "f1": "precision and recall in one number: 1 is perfect",
    "macro_f1": "precision and recall in one number, each class counting the same: 1 is perfect",
    "micro_f1": "precision and recall in one number, each row counting the same: 1 is perfect",
    "macro_precision": "the share of predictions that come true, mean over classes",
    "macro_recall": "the share of each class that was predicted, mean over classes",
    "macro_average_precision": "average precision, mean over classes: 1 is perfect",
    "expected_cost": "what a prediction costs in the mean, by the declared costs: less is better",
    "log_loss": "how surprised the probabilities are by what comes true: less is better",
    "brier": "the mean squared error of probabilities: less is better",
    "ece": "how far probabilities lie from the shares that come true: less is better",
    "ndcg": "how high what happened stands in the predicted list: 1 is always first",
    "hit_rate": "the share of lists that hold what happened",
    "mrr": "one over the place of what happened in the list, in the mean: 1 is always first",
    "coverage": "the share of all items that some list holds",
    "rouge_l": "how much of the true text the written one has, in its order: 1 is all of it",
    "exact_match": "the share of answers that are the true ones, word by word",
    "none_accuracy": "how often a row is answered if and only if it has an answer",
    "bits_per_byte": "how many bits the model needs for a byte of the true text: less is better",
    "unsupported": "the share of written words that the input does not support: less is better",
    "column_named": "how often the changed column is the one that is named: 1 is always",
    "bits_per_row": "how many bits the model needs for a row: less is better",
    "rmse": "the root of the mean squared error, in the target's unit: less is better",
    "mae": "the mean error, in the target's unit: less is better",
    "r2": "the share of the target's variance that is explained: 1 is all of it, 0 is no better than the mean",
    "pinball": "how far the predicted levels are off: less is better",
    "coverage_error": "how far the shares below the predicted levels are off: less is better",
}
"""By name, as params.yaml and the gates have it."""

GATES = {
    "limit": "the metric itself, on rows that no model has learnt from",
    "max_behind_baseline": "the metric, beside that of a simple model",
    "max_behind_champion": "the lead over the model that predicts now, on rows that neither has learnt from",
    "calibration": "whether its probabilities come true as well as the champion's",
    "min_positives": "rows of the rarer answer: with too few nothing is decided",
    "min_days_between": "days since the last change of the champion",
    "slices.max_behind_champion": "the lead over the champion on some of the rows",
    "slices.max_gap": "how far parts of the rows are apart",
    "export.limit": "the metric of the files that score the nights",
    "export.min_rows_per_second": "how fast they score",
    "export.max_megabytes": "how large they are",
    "export.max_memory_megabytes": "how much memory they take",
    "behaviour": "the share of changed rows whose prediction moves as it must",
}
"""By the key below `gates` in params.yaml; `behaviour` for all of its tests."""


def of_metric(name: str) -> str:
    """Return what a metric measures; nothing where that is not known."""
    return METRICS.get(name, "")


def of_gate(name: str) -> str:
    """Return what a gate looks at; nothing where that is not known.

    >>> of_gate("behaviour.0")
    'the share of changed rows whose prediction moves as it must'
    """
    return GATES.get(name) or GATES.get(name.partition(".")[0], "")
