"""Commands that people type, beside the stages: `python -m tasks.commands --help`."""
