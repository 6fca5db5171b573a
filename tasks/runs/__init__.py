"""A run: its workspace, locks, DVC experiment, gates, the model registry, and the steps that a DAG does."""
