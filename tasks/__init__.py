"""FILES in, files out: one module and one public function per stage, run as `python -m tasks.<stage> <product>`."""
