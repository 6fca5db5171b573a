# The Airflow services: API server, scheduler, DAG processor and triggerer. They parse dags/ and run no stage, so
# there is no torch, no pandas and no DVC in here.
#     docker build --file docker/airflow.Dockerfile --tag lamplighter-airflow .     (in the repository's root)
FROM python:3.11-slim

COPY constraints.txt /opt/lamplighter/
# Every version is that of constraints.txt. Airflow with its executor and database, then what checking params.yaml
# imports, botocore and Amazon's provider, by which the Products page and logs of tasks are read from the store, and
# apprise, one of the channels of messages. Great Expectations comes without its dependencies: a parse reads the JSON schemas in the package and never imports it.
RUN pip install --no-cache-dir --constraint /opt/lamplighter/constraints.txt \
        apache-airflow apache-airflow-providers-celery apache-airflow-providers-postgres \
        apache-airflow-providers-amazon apprise botocore croniter jsonschema pydantic pyyaml \
    && pip install --no-cache-dir --no-deps --constraint /opt/lamplighter/constraints.txt great-expectations

# A fixed user id, so that volumes and mounted files can be given to it. Its folder is the one that a service writes to
# beside /tmp, a volume of each container.
RUN useradd --uid 10001 --home-dir /opt/airflow --create-home lamplighter

# The code belongs to root: a service can read it and not change it.
COPY docker/api_server.py docker/sign_in.py docker/roles.json /opt/lamplighter/docker/
COPY docker/kubernetes/training.yaml /opt/lamplighter/docker/kubernetes/
COPY params.yaml /opt/lamplighter/
COPY model /opt/lamplighter/model
COPY tasks /opt/lamplighter/tasks
COPY dags /opt/lamplighter/dags

ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/lamplighter/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/lamplighter/dags/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/lamplighter \
    PYTHONUNBUFFERED=1

# What docker/compose.people.yaml adds, so that many people can sign in, and what Kubernetes wants: README.md.
ARG MORE_PACKAGES=""
RUN if [ -n "$MORE_PACKAGES" ]; then \
        pip install --no-cache-dir --constraint /opt/lamplighter/constraints.txt ${MORE_PACKAGES}; fi

VOLUME /opt/airflow
USER 10001
WORKDIR /opt/airflow
ENTRYPOINT ["airflow"]
CMD ["version"]
