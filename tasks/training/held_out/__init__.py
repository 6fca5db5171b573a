"""Measure more of a model on held-out rows than its metrics: slices of the rows, and what depends on them."""
