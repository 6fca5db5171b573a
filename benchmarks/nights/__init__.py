"""The parts of the benchmark `night`: its rows, one measured stage, and whole nights through the runs."""
