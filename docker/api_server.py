"""Start Airflow's API server with the admin's password from the environment.

Airflow's SimpleAuthManager reads passwords from a file and, where it finds none, makes one up and prints it to the
log. This writes the file first, readable to its user alone, and then becomes `airflow api-server`. Runs in the image
of docker/airflow.Dockerfile.
"""

import json
import os
import sys


def main() -> None:
    """Write the file, and go on as the API server."""
    password = os.environ.pop("LAMPLIGHTER_ADMIN_PASSWORD", "")
    if not password:
        sys.exit("LAMPLIGHTER_ADMIN_PASSWORD must be set, and is not; set it in docker/.env")
    file = os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(json.dumps({"admin": password}) + "\n")
    os.execvp("airflow", ["airflow", "api-server"])


if __name__ == "__main__":
    main()
