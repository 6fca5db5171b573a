"""Erase a person's rows from everything that a product keeps: `make erase`."""
