"""What several tests share: a tiny product, a copy of this project that declares it, a real S3 server."""

import fcntl
import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import TINY, a_repository
from hypothesis import settings

# The same examples every time, however slow the machine; `--hypothesis-profile default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent
FIRST_DAY, LAST_DAY, AS_OF = date(2024, 1, 1), date(2024, 2, 14), "2024-02-10"
ROWS_PER_DAY = 20
START_STORE = [
    sys.executable,
    "-c",
    "from tasks.commands.embedded import environment, store; print(store.start_store(environment.environment()))",
]
"""The command that starts a store of LAMPLIGHTER_HOME's own and prints its address."""


def parcels() -> pd.DataFrame:
    """Parcels whose lateness follows from depot and weight, most days; two of them are broken."""
    random = np.random.default_rng(7)
    days = [FIRST_DAY + timedelta(days=i) for i in range((LAST_DAY - FIRST_DAY).days + 1)]
    n = len(days) * ROWS_PER_DAY
    day = np.repeat([d.isoformat() for d in days], ROWS_PER_DAY)
    depot, weight = random.choice(["A", "B", "007"], n), random.gamma(2.0, 3.0, n).round(2)
    late = (random.random(n) < 1 / (1 + np.exp(-(1.2 * (depot == "B") + 0.4 * (weight - 6))))).astype(int)
    frame = pd.DataFrame(
        {
            "parcel_id": [f"p{i:05d}" for i in range(n)],
            "day": day,
            "depot": depot,
            "weight_kg": weight.astype(str),
            "handed_in": [
                f"{d}T{h:02d}:{m:02d}:00"
                for d, h, m in zip(day, random.integers(6, 22, n), random.integers(0, 60, n), strict=True)
            ],
            "late": late,
        }
    )
    frame.loc[3, "weight_kg"], frame.loc[len(frame) - ROWS_PER_DAY * 3 - 5, "weight_kg"] = "heavy", "-1"
    return frame


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that works in a project of its own."""
    ours = {
        "LAMPLIGHTER_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    # Without bytecode each process of a project would compile the project's code, a second of a core.
    left_out = ("LAMPLIGHTER_", "AIRFLOW", "AWS_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**inherited, **ours, **more}


def make_project(folder: Path, params: str = TINY) -> Path:
    """A copy of this project's files as a git repository that declares `params`, with the parcels as its source."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(params)
    (folder / "source").mkdir()
    parcels().to_csv(folder / "source" / "parcels.csv", index=False)
    return a_repository(folder, "A tiny product")


def call(command: list[str], cwd: Path, env: dict[str, str], expect: int | None = 0) -> str:
    """What a command prints, standard error included; its exit code must be `expect`."""
    done = subprocess.run(
        command, cwd=cwd, env=env, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert expect is None or done.returncode == expect, (
        f"{command} exited with {done.returncode}:\n{done.stdout[-6000:]}"
    )
    return done.stdout


def free_port() -> int:
    """The first of five free ports in a row that leave room for their gRPC twins 10,000 above.

    Every process of a parallel run searches a range of its own: a port is free until its server has started.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20000 + process % 10 * 1000
    for port in range(first + os.getpid() % 900, first + 1000, 7):
        taken = False
        for each in [port + i for i in range(5)] + [port + 10000 + i for i in range(5)]:
            with socket.socket() as probe:
                taken = taken or probe.connect_ex(("127.0.0.1", each)) == 0
        if not taken:
            return port
    raise AssertionError("no free ports")


AIRFLOW = {
    "test_dags",
    "test_dates",
    "test_docker",
    "test_embedded",
    "test_kubernetes",
    "test_page",
    "test_page_of_runs",
    "test_pipeline",
    "test_watch",
}
"""Files whose tests need Airflow."""
SLOW = {
    "test_announcements",
    "test_arrivals",
    "test_arrow_types",
    "test_benchmarks",
    "test_cases",
    "test_chaos",
    "test_checkpoints",
    "test_commands",
    "test_data_docs",
    "test_decisions",
    "test_deliveries",
    "test_delta_table",
    "test_drift",
    "test_effective",
    "test_erase",
    "test_erase_raw",
    "test_evaluate",
    "test_events",
    "test_examples",
    "test_export",
    "test_export_to_database",
    "test_flights",
    "test_folds",
    "test_fork_server",
    "test_generate",
    "test_headlines",
    "test_horizons",
    "test_hostile",
    "test_image",
    "test_ingest",
    "test_language",
    "test_lint",
    "test_log_lines",
    "test_making",
    "test_many_items",
    "test_messages",
    "test_model_bert",
    "test_model_calibration",
    "test_model_companion",
    "test_model_context",
    "test_model_engines",
    "test_model_export",
    "test_model_few_rows",
    "test_model_kinds",
    "test_model_metrics",
    "test_model_packing",
    "test_model_probe",
    "test_model_strengths",
    "test_model_training",
    "test_model_wide",
    "test_model_windows",
    "test_mysql",
    "test_next_item",
    "test_page",
    "test_page_of_runs",
    "test_pieces",
    "test_pii",
    "test_postgres",
    "test_predict",
    "test_predictions",
    "test_pretrain",
    "test_product",
    "test_promote",
    "test_reader",
    "test_readme",
    "test_reconstruct",
    "test_reconstruct_images",
    "test_recreate",
    "test_registry",
    "test_remote",
    "test_reports",
    "test_requeue",
    "test_restore",
    "test_retention",
    "test_rollback",
    "test_run",
    "test_shadow",
    "test_simulate",
    "test_span",
    "test_split",
    "test_store_encryption",
    "test_surroundings",
    "test_target_scale",
    "test_text_constraints",
    "test_train",
    "test_tune",
    "test_unseen",
    "test_validate",
    "test_verdicts",
    "test_verdicts_of_versions",
    "test_versions",
    "test_watch",
    "test_workspace",
}
"""Files whose tests take more than some seconds of a core together, by `--durations`."""

LONG_FIXTURES = {"made", "exported"}
"""Fixtures that take a product through all stages, or a model with all its parts: their tests are of `make long`."""
WAITING = ("test_page", "test_page_of_runs"), ("test_pipeline", "test_chaos")
"""Files that mostly wait, for Airflow or a store: one process takes those of a group, and others compute meanwhile."""
COMPUTING = ("test_simulate", "test_erase", "test_deliveries", "test_model_companion", "test_lint")
LONGEST = (*itertools.chain(*WAITING), *COMPUTING)
"""Files that take minutes, in the order in which they start: one that is alone at the end idles the other cores."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file out that `-m` leaves out as a whole: importing what it needs takes longer than the fast tests."""
    left_out = {"not slow": SLOW, "not airflow": AIRFLOW}
    named = [files for asked, files in left_out.items() if asked in config.option.markexpr]
    if config.option.markexpr == "long" and collection_path.suffix == ".py":
        marks = ("pytest.mark.long", *(f"def {fixture}(" for fixture in LONG_FIXTURES))
        return not any(mark in collection_path.read_text("utf-8") for mark in marks) or None
    return any(collection_path.stem in files for files in named) or None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one process, and the waiting ones of a group to the same."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((group[0] for group in WAITING if Path(file).stem in group), file)

    return ByFile(config, log) if config.option.dist == "loadfile" else None


def pytest_exception_interact(call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
    """Let a command that failed say what it wrote: its exception alone does not."""
    error = call.excinfo and call.excinfo.value
    if isinstance(error, subprocess.CalledProcessError):
        wrote = {"stdout": error.stdout, "stderr": error.stderr}
        report.sections.extend((f"{name} of the command", str(text)) for name, text in wrote.items() if text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Airflow, a server or time, and let the longest files start first."""
    for item in items:
        file, fixtures = item.path.stem, getattr(item, "fixturenames", ())
        is_long = item.get_closest_marker("long") is not None or not LONG_FIXTURES.isdisjoint(fixtures)
        needs = {
            "long": is_long,
            "airflow": file in AIRFLOW,
            "slow": file in SLOW or is_long or "export_once" in fixtures,
            "s3": "s3" in fixtures,
        }
        for mark in (mark for mark, needed in needs.items() if needed):
            item.add_marker(mark)
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server of this test session; yields the environment that reaches it."""
    home = tmp_path_factory.mktemp("store")
    env = environment(home, LAMPLIGHTER_S3_PORT=str(free_port()), PYTHONPATH=str(ROOT))
    call(START_STORE, home, env)
    kept = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
    yield {name: value for name, value in kept.items() if name.startswith("AWS_")}
    call([sys.executable, "-m", "tasks.commands", "down"], ROOT, env)


@pytest.fixture(scope="session")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, Path], None]:
    """`export_onnx` for tests whose subject is not the export, which takes seconds.

    Where a test of this session, in whichever process, has exported a network of the same files, that is copied.
    """
    from model.scoring.export import CARRIED, export_onnx

    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    kept.mkdir(exist_ok=True)

    def export(trained: Path, folder: Path) -> None:
        read = [trained / name for name in ("network.safetensors", *CARRIED) if (trained / name).exists()]
        digests = [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in read]
        exported = kept / hashlib.sha256("\n".join(digests).encode()).hexdigest()
        with exported.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not exported.exists():
                unfinished = exported.with_suffix(".unfinished")
                export_onnx(trained, unfinished)
                unfinished.rename(exported)
        shutil.copytree(exported, folder, dirs_exist_ok=True)

    return export


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a home for checkpoints and folds, of one test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMPLIGHTER_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def s3_here(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The S3 server, for code that runs in the test's own process."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to upload."""
    path = tmp_path / "part.parquet"
    path.write_bytes(b"content" * 1000)
    return path
