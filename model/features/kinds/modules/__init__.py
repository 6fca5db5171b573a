"""The torch half of each kind: its token module and what guesses its hidden values. Imported by networks alone."""
