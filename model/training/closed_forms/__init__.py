"""Fits to the optimum, once the encoder is trained."""
