"""Answers that stand in a text: its windows, and where in these an answer lies."""
