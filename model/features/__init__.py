"""Tables to arrays to batches."""
