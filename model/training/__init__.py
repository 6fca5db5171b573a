"""Training: optimisation, losses, masked modelling, closed-form fits, calibration, and inference with torch."""
