"""Replay nights and retrains of the past in order, apart from the real ones, and compare policies of promotion."""
