"""Give published nights to what reads tables: a Delta Lake table beside the nights, and tables of databases."""
