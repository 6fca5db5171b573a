"""Tensors in, tensors out: the Transformer that reads a row, and what fits, measures, stores, exports and runs it.

Knows nothing of YAML, Airflow, DVC, pandas or products. Importing this package imports nothing heavy;
`model.settings` stays light too, so that a scheduler may read it while it parses.
"""
