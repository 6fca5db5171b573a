"""What the training stages do: pretraining, fine-tuning, measuring, folds, tuning, checkpoints."""
