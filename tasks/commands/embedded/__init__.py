"""The embedded default: an object store and Airflow on loopback, and the commands that work with them."""
