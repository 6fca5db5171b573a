"""Tensors in, tensors out: the Transformer that reads a row, and everything that fits, stores and runs it.

Knows nothing of YAML, Airflow, DVC, pandas or products. Importing this package imports nothing heavy;
`model.settings` stays light too, so that a scheduler may read it while it parses.
"""
