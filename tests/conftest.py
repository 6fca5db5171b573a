"""What several tests share: a tiny product, a copy of this project that declares it, a real S3 server."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

# The same examples every time; `--hypothesis-profile default` looks for new ones.
settings.register_profile("steady", derandomize=True)
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent
FIRST_DAY, LAST_DAY, AS_OF = date(2024, 1, 1), date(2024, 2, 14), "2024-02-10"
ROWS_PER_DAY = 20
TINY = """
as_of: "2024-02-10"
products:
  tiny:
    description: Does a parcel arrive late?
    source: {kind: csv, url: source/parcels.csv}
    key: [parcel_id]
    time: day
    columns: {depot: category, weight_kg: number, handed_in: time}
    target: {name: late, task: binary, delay_days: 1}
    predict: {horizon_days: 1, shards: 3}
    expectations:
      - {type: expect_column_values_to_be_between, severity: warning, kwargs: {column: weight_kg, min_value: 0}}
      - {type: expect_column_values_to_not_be_null, severity: critical, kwargs: {column: depot, mostly: 0.9}}
    drift: {}
    pii: {}
    split: {by: time, test_days: 7, val_days: 5, train_days: 25}
    model:
      preset: small
      init: pretrain
      network: {d_model: 16, n_heads: 2, n_layers: 1, d_feedforward: 32}
      pretrain: {epochs: 1, batch_tokens: 512}
      train: {epochs: 8, batch_tokens: 512, learning_rate: 0.003, keep: last, refit: true}
      engine: onnxruntime-fp32
    gates: {metric: auc, limit: 0.5, max_behind_baseline: 0.5, max_behind_champion: 0.5}
    schedule: {retrain: "0 3 * * 0", predict: "0 2 * * *"}
    publish: {url: "s3://lamplighter/predictions"}
"""


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
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("LAMPLIGHTER_", "AIRFLOW", "AWS_"))
    }
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
    for command in (
        ["init", "--quiet", "-b", "main"],
        ["config", "user.name", "Test"],
        ["config", "user.email", "test@localhost"],
        ["add", "--all"],
        ["commit", "--quiet", "-m", "A tiny product"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True, env=environment(folder))
    return folder


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file starts first: alone at the end, it would leave one process idle."""
    items.sort(key=lambda item: item.path.stem != "test_pipeline")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server of this test session; yields the environment that reaches it."""
    home = tmp_path_factory.mktemp("store")
    env = environment(home, LAMPLIGHTER_S3_PORT=str(free_port()), PYTHONPATH=str(ROOT))
    call([sys.executable, "-c", "from tasks.commands import embedded as e; e.start_store(e.environment())"], home, env)
    kept = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
    yield {name: value for name, value in kept.items() if name.startswith("AWS_")}
    call([sys.executable, "-m", "tasks.commands", "down"], ROOT, env)


@pytest.fixture
def s3_here(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The S3 server, for code that runs in the test's own process."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return s3
