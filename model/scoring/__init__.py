"""Scoring: export to ONNX, quantisation, the engines, the choice among them, and the scores of tables."""
