"""Oracle: a real SeaweedFS, started as `make run` starts it."""

import fcntl
import importlib
import os
import shutil
import socket
import sqlite3
import stat
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import ROOT, START_STORE, call, environment, free_port
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from tasks.commands.embedded import database, run
from tasks.commands.embedded import environment as module
from tasks.commands.embedded.airflow_process import AirflowProcess
from tasks.runtime import settings
from tasks.runtime.errors import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where a store of its own keeps everything; the store is stopped afterwards."""
    folder = tmp_path_factory.mktemp("home") / "für morgen"
    folder.mkdir(mode=0o755)
    env = environment(folder, LAMPLIGHTER_S3_PORT=str(free_port()), PYTHONPATH=str(ROOT))
    call(START_STORE, folder, env)
    yield folder
    call([sys.executable, "-m", "tasks.commands", "down"], ROOT, env)


def credentials(home) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())


def test_credentials_are_readable_by_their_owner_only(home):
    """Airflow writes its own by the umask."""
    for name in ("env", "security.toml"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_store_refuses_a_wrong_key(home):
    kept = credentials(home)
    wrong = boto3.client(
        "s3",
        endpoint_url=kept["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=kept["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="0" * 40,
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        wrong.list_objects_v2(Bucket="lamplighter")


def test_the_ports_behind_the_gateway_give_no_object_away(home):
    kept = credentials(home)
    client = boto3.client(
        "s3",
        endpoint_url=kept["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=kept["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=kept["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    client.put_object(Bucket="lamplighter", Key="secret", Body=b"x")
    filer = int(kept["AWS_ENDPOINT_URL_S3"].rpartition(":")[2]) + 2
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{filer}/buckets/lamplighter/secret")


def test_variables_for_another_store_or_another_airflow_are_not_mixed_with_ours(home, monkeypatch):
    keys = {"AWS_ACCESS_KEY_ID": "a person's", "AWS_SECRET_ACCESS_KEY": "own", "AWS_SESSION_TOKEN": "for another store"}
    elsewhere = {"AIRFLOW_HOME": "/elsewhere", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://elsewhere"}
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(home))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (keys | elsewhere | {"PATH": "/usr/bin"}).items():
        monkeypatch.setenv(name, value)
    given = module.environment()
    own = {name: value for name, value in credentials(home).items() if name.startswith("AWS_")}
    assert {name: value for name, value in given.items() if name.startswith("AWS_")} == own
    assert given["AIRFLOW_HOME"] == str(home / "airflow")
    assert shutil.which("airflow", path=given["PATH"]) == str(settings.BIN / "airflow")
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in given
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.org")
    given = module.environment()
    wanted = keys | {"AWS_ENDPOINT_URL_S3": "https://s3.example.org"}
    assert {name: value for name, value in given.items() if name.startswith(("AWS_", "S3_"))} == wanted


def test_command_that_enters_the_environment_has_nothing_else_left(home):
    env = environment(home, PYTHONPATH=str(ROOT), AWS_SESSION_TOKEN="for another store", AIRFLOW_HOME="/elsewhere")
    enter = "from tasks.commands.embedded.environment import export_environment; export_environment()"
    code = f"import os; {enter}; print(os.environ.get('AWS_SESSION_TOKEN'))"
    assert call([sys.executable, "-c", code], home, env).split() == ["None"]


def test_store_of_ones_own_is_never_started_on_loopback(home, tmp_path):
    """It would come up with keys of that store's, or with none."""
    env = environment(tmp_path, PYTHONPATH=str(ROOT), AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{free_port()}")
    printed = call([sys.executable, "-m", "tasks.commands", "up"], ROOT, env, expect=65)
    assert "credentials must be in the environment, and are not" in printed
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    printed = call([sys.executable, "-m", "tasks.commands", "up"], ROOT, env | keys, expect=65)
    assert "start that store, or correct AWS_ENDPOINT_URL_S3" in printed
    assert not list(tmp_path.glob("store*"))


def files_naming(folder, place) -> list[str]:
    """The files below a folder that hold the name of a place; of a log, what a server has written is history."""
    held = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".log"]
    return [str(file.relative_to(folder)) for file in held if str(place).encode() in file.read_bytes()]


@pytest.mark.long
def test_moved_folder_leaves_nothing_behind_and_a_copy_leaves_the_original_alone(home, tmp_path):
    kept = credentials(home)
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("store"))
    env = environment(copy, PYTHONPATH=str(ROOT))
    down = [sys.executable, "-m", "tasks.commands", "down"]
    assert call(down, ROOT, env) == "", "the copied number of a process is that of the original's store"
    taken = call(START_STORE, ROOT, env, expect=1)
    assert "another clone's store, perhaps" in taken
    assert "set LAMPLIGHTER_S3_PORT to" in taken
    port = str(free_port())
    address = call(START_STORE, ROOT, env | {"LAMPLIGHTER_S3_PORT": port}).strip()
    assert address == credentials(copy)["AWS_ENDPOINT_URL_S3"] == f"http://127.0.0.1:{port}"
    assert not files_naming(copy, copy)
    copy.rename(moved)  # while its store runs
    env = environment(moved, PYTHONPATH=str(ROOT))
    printed = call(START_STORE, ROOT, env)
    assert "store: was started before this folder was moved; starting it anew" in printed
    assert call(START_STORE, ROOT, env).strip() == address
    assert call(down, ROOT, env) == "store: stopped\n"
    assert not copy.exists()
    assert credentials(home) == kept
    assert call(START_STORE, ROOT, environment(home)).strip() == kept["AWS_ENDPOINT_URL_S3"]


@pytest.mark.long
def test_configuration_of_airflow_follows_a_folder_that_is_moved(tmp_path):
    """Airflow writes a file full of absolute paths where there is none, and an old one may lie there still."""
    before, after = tmp_path / "before", tmp_path / "after"
    (before / "airflow").mkdir(parents=True)
    (before / "airflow" / "airflow.cfg").write_text(f"[core]\nplugins_folder = {before}/airflow/plugins\n")
    asked = "from tasks.commands.embedded.environment import export_environment; export_environment(); "
    asked += "from airflow.configuration import conf; print(conf.get('database', 'sql_alchemy_conn'), "
    asked += "conf.get('core', 'plugins_folder'), conf.get('logging', 'base_log_folder'))"
    for folder in (before, after):
        if folder is after:
            before.rename(after)
        printed = call([sys.executable, "-c", asked], tmp_path, environment(folder, PYTHONPATH=str(ROOT)))
        assert printed.count(f"{folder}/airflow/") == 2, printed
        assert str(ROOT / "dags" / "plugins") in printed, "it lies in the repository that is asked"
    assert (after / "airflow" / "airflow.cfg.unused").exists()
    assert files_naming(after, before) == ["airflow/airflow.cfg.unused"]
    assert not before.exists()


def test_starting_again_finds_the_same_store(home):
    before = (home / "store.pid").read_text()
    env = environment(home, PYTHONPATH=str(ROOT))
    assert credentials(home)["AWS_ENDPOINT_URL_S3"] in call(START_STORE, home, env)
    assert (home / "store.pid").read_text() == before


def test_a_port_that_another_program_holds_is_one_clear_message(home, tmp_path):
    taken = credentials(home)["AWS_ENDPOINT_URL_S3"].rpartition(":")[2]
    env = environment(tmp_path, LAMPLIGHTER_S3_PORT=taken)
    printed = call([sys.executable, "-m", "tasks.commands", "up"], ROOT, env, expect=65)
    assert f"port {taken} must be free" in printed
    assert "Traceback" not in printed


def test_servers_are_stopped_and_what_has_an_old_number_of_theirs_is_not(tmp_path):
    env = environment(tmp_path, PYTHONPATH=str(ROOT))
    start = (
        "import os; from tasks.commands.embedded import daemons; "
        "daemons.start_daemon('{}', dict(os.environ), ['sleep', '60'])"
    )
    down = [sys.executable, "-m", "tasks.commands", "down"]
    for name in ("store", "airflow-standalone"):
        call([sys.executable, "-c", start.format(name)], ROOT, env)
    pid = int((tmp_path / "store.pid").read_text())
    call([sys.executable, "-c", start.format("store")], ROOT, env)
    assert int((tmp_path / "store.pid").read_text()) == pid, "it runs already"
    (tmp_path / "store.pid").rename(tmp_path / "held")
    (tmp_path / "store.pid").write_text(str(pid))  # as it is left where the machine was started anew
    assert call(down, ROOT, env) == "airflow-standalone: stopped\n"
    assert not list(tmp_path.glob("*.pid"))
    os.kill(pid, 0)
    (tmp_path / "held").rename(tmp_path / "store.pid")
    assert call(down, ROOT, env) == "store: stopped\n"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_run_beside_a_scheduler_says_where_its_tasks_may_print(tmp_path, monkeypatch, capsys):

    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path))
    monkeypatch.setenv("LAMPLIGHTER_UI_PORT", "18080")
    run._print_scheduler()
    assert capsys.readouterr().out == ""
    with (tmp_path / "airflow-standalone.pid").open("w") as held:
        held.write(str(os.getpid()))
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)  # as a server that runs holds it
        run._print_scheduler()
    assert "its scheduler may do some tasks of this run" in (printed := capsys.readouterr().out)
    assert "http://127.0.0.1:18080; to see it all here, make down first" in printed
    assert printed.count("\n") == 1


def test_another_program_on_the_port_of_airflow_is_not_taken_for_it(home):
    (home / "airflow-standalone.pid").write_text(str(os.getpid()))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        env = environment(home, LAMPLIGHTER_UI_PORT=port, PYTHONPATH=str(ROOT))
        printed = call([sys.executable, "-m", "tasks.commands", "up"], ROOT, env, expect=65)
    assert f"ports {port} and {int(port) + 1} must be free for Airflow, and another program holds {port}" in printed


def test_an_unknown_product_is_one_clear_message(tmp_path):
    printed = call(
        [sys.executable, "-m", "tasks.commands", "run", "flight-delay"], ROOT, environment(tmp_path), expect=65
    )
    assert "did you mean flight-delays?" in printed
    assert not list(tmp_path.iterdir())


def transaction(file, seconds: float) -> None:
    """Write, and hold the turn for so long."""
    with sqlite3.connect(file, **database.CONNECT) as writer:
        writer.execute("INSERT INTO run VALUES (1)")
        time.sleep(seconds)


@pytest.mark.parametrize("is_ours", [True, False])
def test_savepoint_that_reads_first_waits_for_its_turn_to_write(tmp_path, is_ours):
    """As the creation of a backfill does, through SQLAlchemy as Airflow uses it."""
    file = tmp_path / "für morgen.db"
    engine = create_engine(f"sqlite:///{file}", connect_args=database.CONNECT if is_ours else {})
    with engine.begin() as first:
        first.exec_driver_sql("PRAGMA journal_mode=WAL")
        first.exec_driver_sql("CREATE TABLE run (id INTEGER)")
    refused = nullcontext() if is_ours else pytest.raises(OperationalError, match="database is locked")
    with ThreadPoolExecutor() as others, engine.connect() as connection, refused:
        others.submit(transaction, file, 0.5)
        time.sleep(0.2)
        with connection.begin_nested():
            assert connection.exec_driver_sql("SELECT count(*) FROM run").scalar() == int(is_ours)
            time.sleep(0.5)
            connection.exec_driver_sql("INSERT INTO run VALUES (2)")
        connection.commit()
        assert connection.exec_driver_sql("SELECT count(*) FROM run").scalar() == 2


def test_airflow_opens_its_database_so_and_its_tasks_have_a_server_of_their_own(home, monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(home))
    monkeypatch.setenv("LAMPLIGHTER_UI_PORT", "18080")
    given = module.environment()
    for name in ("CONNECT_ARGS", "CONNECT_ARGS_ASYNC"):
        place, _, value = given[f"AIRFLOW__DATABASE__SQL_ALCHEMY_{name}"].rpartition(".")
        assert getattr(importlib.import_module(place), value) is database.CONNECT
    assert given["AIRFLOW__API__PORT"] == "18080"
    assert given["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18081/execution/"


def test_logs_of_tasks_go_where_the_setting_says_and_nowhere_without_it(home, monkeypatch):
    """That they are read from there: test_page.py."""
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(home))
    monkeypatch.delenv("LAMPLIGHTER_TASK_LOGS", raising=False)
    assert not any("REMOTE" in name for name in module.environment())
    monkeypatch.setenv("LAMPLIGHTER_TASK_LOGS", "s3://lamplighter/logs")
    monkeypatch.setenv("LAMPLIGHTER_STORE_ENCRYPTION", "AES256")
    given = module.environment()
    assert given["AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER"] == "s3://lamplighter/logs"
    assert given["AIRFLOW__LOGGING__ENCRYPT_S3_LOGS"] == "True"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LAMPLIGHTER_TASK_LOGS": "logs"}, "LAMPLIGHTER_TASK_LOGS must be s3://bucket/prefix, got 'logs'"),
        ({"LAMPLIGHTER_TASK_LOGS": "s3://bucket"}, "must be s3://bucket/prefix"),
        (
            {"LAMPLIGHTER_TASK_LOGS": "s3://bucket/logs", "LAMPLIGHTER_STORE_ENCRYPTION": "customer"},
            "LAMPLIGHTER_TASK_LOGS must be unset where LAMPLIGHTER_STORE_ENCRYPTION is customer",
        ),
    ],
)
def test_place_of_logs_that_cannot_be_kept_to_is_refused(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        settings.task_logs()


def test_package_that_keeps_logs_in_the_store_is_named_where_it_lacks(monkeypatch):
    monkeypatch.setenv("LAMPLIGHTER_TASK_LOGS", "s3://lamplighter/logs")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"install --constraint constraints.txt '.\[logs\]'"):
        module.task_log_settings()


def test_airflow_that_is_loaded_once_does_commands_tells_failures_and_its_own_end(tmp_path, capfd):
    env = environment(tmp_path, AIRFLOW_HOME=str(tmp_path), PYTHONPATH=str(ROOT))
    with AirflowProcess(env) as airflow:
        (version,) = airflow.call("version")
        assert capfd.readouterr().out == version
        with pytest.raises(UserError, match=r"(?s)airflow dags nothing failed:\n.*invalid choice: 'nothing'"):
            airflow.call("dags", "nothing", quiet=True)
        assert capfd.readouterr().out == ""
        assert airflow.call("version", quiet=True) == [version]
        airflow._process.kill()
        with pytest.raises(UserError, match="airflow version failed"):
            airflow.call("version", quiet=True)
