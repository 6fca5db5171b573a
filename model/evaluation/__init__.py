"""Metrics, and the baseline that a model is measured beside."""
