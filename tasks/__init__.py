"""FILES in, files out: at the root one door per stage, `python -m tasks.<stage> <product>`; behind them, packages.

`publish`, `promote` and `gc` are doors of the same form, and `read` is for readers of nights.
"""

STAGES = ("ingest", "validate", "split", "pretrain", "train", "evaluate", "export", "predict")
"""The stages in the order in which data flows through them; `publish`, `promote` and `gc` are not stages but side
effects."""
