"""Which rows repeat a key: an index of the keys of all days, and what follows from it for the rows of some."""
