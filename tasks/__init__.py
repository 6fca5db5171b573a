"""FILES in, files out: at the root one door per stage, `python -m tasks.<stage> <product>`; behind them, packages."""

STAGES = ("ingest", "validate", "split", "pretrain", "train", "evaluate", "export", "predict")
"""The stages in the order in which data flows through them; `publish` and `promote` are not stages but side effects."""
