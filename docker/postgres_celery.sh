#!/bin/sh
# Runs once, when the database is made: a database of its own for Celery's results, so that a worker holds no
# credentials of Airflow's. The password goes in as a variable of psql, quoted by it.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$CELERY_DB_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE celery LOGIN PASSWORD :'password';
CREATE DATABASE celery OWNER celery;
REVOKE CONNECT ON DATABASE airflow FROM PUBLIC;
SQL
