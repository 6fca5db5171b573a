"""Scoring: engines, export to ONNX, quantisation, and the choice between them."""
