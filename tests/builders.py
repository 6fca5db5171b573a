"""Build what the tests work on: a declaration, a product of it, files of rows as a stage leaves them, a repository."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from tasks import params
from tasks.params import Product
from tasks.publication.contracts import NightInputs, RecordedEngine
from tasks.rows.decisions import Accepted, file_of, write_decisions
from tasks.rows.partitions import partition, write_table
from tasks.rows.raw_archive import RawIndex, StoredDay, content_digest
from tasks.runtime.errors import UserError
from tasks.runtime.paths import Paths, Table

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
    predict: {horizon_days: 1, shards: 3, rows_per_shard: 7}
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
      companion: none
      engine: onnxruntime-fp32
    gates: {metric: auc, limit: 0.5, max_behind_baseline: 0.5, max_behind_champion: 0.5, champion_lead: any, calibration: any, min_positives: 0, min_days_between: 0}
    schedule: {retrain: "0 3 * * 0", predict: "0 2 * * *"}
    publish: {url: "s3://lamplighter/predictions"}
"""  # noqa: E501


def declared(**changes: Any) -> dict[str, Any]:
    """Return the tiny file with values replaced: `model__init="x"` replaces products.tiny.model.init."""
    content = yaml.safe_load(TINY)
    for place, value in changes.items():
        *path, last = place.split("__")
        entry = content["products"]["tiny"]
        for step in path:
            entry = entry[step]
        entry[last] = value
    return content


def a_product(**changes: Any) -> Product:
    """Return the tiny product with values replaced, as in `declared`."""
    return params.parse(declared(**changes)).product("tiny")


def mistakes(content: dict[str, Any]) -> list[str]:
    """Return the mistakes that are found in a file's content, one line each, without the file's name."""
    with pytest.raises(UserError) as caught:
        params.parse(content)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("params.yaml: ") for line in lines), lines
    return [line.removeprefix("params.yaml: ") for line in lines]


def raw_rows(rows: pd.DataFrame, day: str | date) -> None:
    """Write raw rows of the tiny product that arrived with `day`, as `ingest` does."""
    raw_day("rows", date.fromisoformat(str(day)), rows)


def raw_labels(labels: pd.DataFrame, day: str | date) -> None:
    """Write raw labels of the tiny product that became known on `day`, as `ingest` does."""
    raw_day("labels", date.fromisoformat(str(day)), labels)


def raw_day(kind: Table, day: date, frame: pd.DataFrame | pa.Table) -> None:
    """Write raw rows or labels of the tiny product under a date, and note them in the index."""
    index = RawIndex.load(Paths("tiny").raw)
    index.partitions(kind).write(day, frame)
    table = index.partitions(kind).table(day)
    stored = StoredDay(rows=len(table), digest=content_digest(table))
    (index.rows if kind == "rows" else index.labels)[day.isoformat()] = stored
    index.save()


def accept_days(*days: date) -> None:
    """Let days of the tiny product pass, such as a scored day that has no row, as a person does."""
    for day in days:
        accepted = Accepted(decided=day.isoformat(), person="Ann", why="few rows are enough here")
        write_decisions(file_of("tiny", day), [accepted])


def valid_rows(rows: pd.DataFrame, known_after_days: int = 0, not_stored: Sequence[str] = ()) -> None:
    """Write typed rows and labels of the tiny product by their column `day`, as `validate` does.

    Rows without a label have none written. The columns `not_stored` are left out, as `late` is.
    """
    for day, part in rows.groupby("day"):
        at = pd.Timestamp(day).date()
        write_table(partition(Paths("tiny").valid / "rows", at), part.drop(columns=["late", *not_stored]))
        labels = part.loc[part["late"].notna(), ["parcel_id", "late"]].astype({"late": "Int8"})
        write_table(partition(Paths("tiny").valid / "labels", at + timedelta(days=known_after_days)), labels)


def night_inputs(
    model: str = "m1", as_of: date = date(2024, 2, 10), scored_day: date = date(2024, 2, 11)
) -> NightInputs:
    """Return the inputs of a night that nothing has scored; `model` stands for the model's hash."""
    engine = {"engine": "onnxruntime", "version": "1", "provider": "CPU", "precision": "fp32", "processor": "none"}
    return NightInputs(
        product="tiny",
        as_of=as_of,
        scored_day=scored_day,
        shards=3,
        threshold=0.5,
        rows_sha256=None,
        model_sha256=model,
        engine=RecordedEngine(**engine),
        code_sha256="code",
        environment_sha256="environment",
    )


def a_repository(folder: Path, message: str | None = "A revision") -> Path:
    """Make `folder` a git repository with an identity, and commit all that lies in it, if only under a message."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = [
        ["init", "--quiet", "-b", "main"],
        ["config", "user.name", "Test"],
        ["config", "user.email", "test@localhost"],
    ]
    if message is not None:
        commands += [["add", "--all"], ["commit", "--quiet", "--allow-empty", "-m", message]]
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    for command in commands:
        subprocess.run(["git", *command], cwd=folder, check=True, env=env)
    return folder


def to_split(product: Product, as_of: date) -> None:
    """Take a product's rows through ingest, validate and split."""
    from tasks.ingest import ingest
    from tasks.split import split
    from tasks.validate import validate

    for stage in (ingest, validate, split):
        stage(product, as_of)


@contextmanager
def through_all_stages(folder: Path, rows: pd.DataFrame, changes: Mapping[str, Any], as_of: date) -> Iterator[str]:
    """Work in a folder in which a product of these rows went through all stages to its night; yield evaluate's line."""
    import torch

    from tasks.evaluate import evaluate
    from tasks.export import export
    from tasks.predict import predict
    from tasks.pretrain import pretrain
    from tasks.train import train

    n_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)  # on a machine at work several wait for one another
        for name in ("tasks", "model"):
            (folder / name).symlink_to(Path(__file__).parent.parent / name)
        (folder / "constraints.txt").write_text("")
        (folder / "source").mkdir()
        rows.to_csv("source/parcels.csv", index=False)
        Path("params.yaml").write_text(yaml.safe_dump(declared(**changes)))
        product = a_product(**changes)
        to_split(product, as_of)
        pretrain(product, as_of)
        train(product, as_of)
        patch.setattr("tasks.training.measuring.N_RESAMPLES", 20)
        line = evaluate(product, as_of)
        export(product, as_of)
        predict(product, as_of)
        yield line
        torch.set_num_threads(n_threads)


def predicted(product: str = "tiny") -> pd.DataFrame:
    """Return the predictions of the night on disk, in the order of its parts."""
    parts = sorted(Paths(product).predictions.glob("*.parquet"))
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def predicted_bytes(product: str = "tiny") -> list[bytes]:
    """Return the parts of the night on disk as they are."""
    return [part.read_bytes() for part in sorted(Paths(product).predictions.glob("*.parquet"))]


def report(name: str, product: str = "tiny") -> dict[str, Any]:
    """Return what a stage reported of a product."""
    return json.loads(Paths(product).report(name).read_text("utf-8"))
