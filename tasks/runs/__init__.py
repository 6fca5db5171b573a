"""A run: its workspace, its locks, its experiment, the registry, and the steps that a DAG does."""
