"""Decide which version of a model predicts, and search better settings."""
