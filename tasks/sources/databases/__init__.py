"""How a query is asked of a database, and what single servers and their drivers have that Python has not."""
