"""Checks of rows and labels: expectations, keys, types, and how far a day differs from those before; their report."""
