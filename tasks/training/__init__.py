"""What the stages `pretrain`, `train`, `evaluate` and `export` do; checkpoints, folds, and the search for settings."""
