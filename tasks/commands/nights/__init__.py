"""Make, look at, trace, repeat, withdraw and hand on nights."""
