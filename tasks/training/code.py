"""Name the code that decides the outcome of each training, for what identifies its checkpoints, folds and trials.

`tests/test_dvc_yaml.py` holds each list to what is imported.
"""

_BOTH = (
    "tasks/rows/casting.py",
    "tasks/rows/keys.py",
    "tasks/rows/labels/horizons.py",
    "tasks/rows/model_inputs.py",
    "tasks/rows/partitions.py",
    "tasks/rows/stored_days.py",
    "tasks/runtime/files.py",
    "tasks/runtime/fingerprints.py",
    "tasks/training/checkpoints.py",
    "model/compute",
    "model/features",
    "model/heads",
    "model/network",
    "model/settings.py",
    "model/target.py",
    "model/training",
)
PRETRAINING = (
    *_BOTH,
    "tasks/training/pretraining.py",
)
FINE_TUNING = (
    *_BOTH,
    "tasks/training/fine_tuning.py",
    "tasks/training/held_out/unseen.py",
    "tasks/training/target_scale.py",
)
CROSS_VALIDATION = (
    *PRETRAINING,
    "tasks/rows/changed.py",
    "tasks/rows/labels/known.py",
    "tasks/rows/labels/labelled.py",
    "tasks/rows/labels/windows.py",
    "tasks/rows/losses.py",
    "tasks/rows/splitting.py",
    "tasks/runtime/records.py",
    "tasks/training/cross_validation.py",
    "tasks/training/fine_tuning.py",
    "tasks/training/gate_metric.py",
    "tasks/training/held_out/seasonal_naive.py",
    "tasks/training/held_out/spans.py",
    "tasks/training/held_out/texts.py",
    "tasks/training/held_out/unseen.py",
    "tasks/training/measuring.py",
    "tasks/training/predictions.py",
    "tasks/training/target_scale.py",
    "model/evaluation/answer_candidates.py",
    "model/evaluation/baseline.py",
    "model/evaluation/cooccurrence.py",
    "model/evaluation/item_mixture.py",
    "model/evaluation/kneser_ney.py",
    "model/evaluation/metrics.py",
    "model/evaluation/thresholds.py",
    "model/scoring/automaton.py",
    "model/scoring/constraint.py",
    "model/scoring/engines.py",
    "model/scoring/generation.py",
    "model/scoring/scorer.py",
    "model/scoring/trees.py",
)
