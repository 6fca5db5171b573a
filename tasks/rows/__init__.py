"""Rows of a product: arrival, types, keys, partitions, raw archive, personal data, decisions, splits and arrays."""
