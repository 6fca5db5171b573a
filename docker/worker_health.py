"""Say whether a Celery worker is well: it answers, and its disk has room. Its health check in docker/compose.yaml.

A worker without room takes no task from the queue until it has: each would fail there in a second, and a worker that
fails that fast gets its tries before those that could do the work. Runs in the image of docker/worker.Dockerfile.
"""

import os
import shutil
import socket
import sys

from airflow.configuration import conf
from airflow.providers.celery.executors.celery_executor import app

ANSWER_SECONDS = 15.0


def main() -> None:
    """Exit with what is wrong, or well."""
    least = float(os.environ["LAMPLIGHTER_LEAST_FREE_MB"])
    worker, queue = f"celery@{socket.gethostname()}", conf.get("operators", "default_queue")
    if not app.control.inspect(destination=[worker], timeout=ANSWER_SECONDS).ping():
        sys.exit(f"{worker} does not answer")
    free = shutil.disk_usage(os.environ["HOME"]).free / 1e6
    change = app.control.add_consumer if free >= least else app.control.cancel_consumer
    change(queue, destination=[worker], reply=True, timeout=ANSWER_SECONDS)
    if free < least:
        sys.exit(f"its disk must have {least:,.0f} MB free, and has {free:,.0f}: it takes no tasks until it has")


if __name__ == "__main__":
    main()
