"""Search better settings of a product, trial by trial: what `make tune` does."""
