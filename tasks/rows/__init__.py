"""Rows of a product: their types, keys, partitions, personal data, corrections, splits and arrays."""
