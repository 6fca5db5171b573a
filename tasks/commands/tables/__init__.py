"""Write published nights into tables of databases."""
