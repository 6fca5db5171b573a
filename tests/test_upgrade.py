"""Oracle: what the version 834b4ba left, byte for byte, and its own hashes; the whole way is `make chaos PART=upgrade`.

night_of_834b4ba.json holds the objects of a night that this version published: texts as they are, Parquet as base64.
"""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import chaos_upgrade
import pytest
from builders import a_product
from conftest import ROOT
from test_publish import url  # noqa: F401 (a fixture)

from tasks import params
from tasks.commands.data import decide
from tasks.params import defaults, messages
from tasks.publication import manifests
from tasks.publication.garbage import collect_garbage
from tasks.publication.object_store import Store
from tasks.read import list_nights, read_manifest, read_predictions, verify_night
from tasks.runtime.errors import UserError

STORED = json.loads((ROOT / "tests" / "night_of_834b4ba.json").read_text())
PAGE = (ROOT / "docs" / "upgrading.md").read_text()
URL = "s3://lamplighter/predictions"


@pytest.fixture
def store(url):  # noqa: F811
    """The store as the earlier version left it, at the address that its manifests name."""
    store = Store(URL)
    for key in store.list("late-orders/"):
        store.delete(key)
    for key, text in STORED.items():
        store.replace(key, text.encode() if key.endswith(".json") else base64.b64decode(text), None)
    return store


def test_night_of_an_earlier_version_is_listed_read_and_verified(store):
    manifest = read_manifest(URL, "late-orders")
    assert manifest.dt.isoformat() == "2024-02-05"
    assert [each.dt for each in list_nights(URL, "late-orders")] == [manifest.dt]
    assert verify_night(URL, "late-orders", "2024-02-05") == manifest
    frame = read_predictions(URL, "late-orders")
    assert (len(frame), list(frame)) == (40, ["order_id", "day", "prediction", "probability"])
    assert manifest.model.approval.startswith("lamplighter, 2026-11-29 21:00:34 +0000: approved by root")


def test_night_of_an_earlier_version_is_moved_and_stays_the_same_night(store):
    before, frame = read_manifest(URL, "late-orders"), read_predictions(URL, "late-orders")
    product = a_product(publish={"url": URL})
    line = collect_garbage(store, replace(product, name="late-orders"), datetime.now(UTC) + timedelta(minutes=1))
    assert line.endswith("; 1 nights put right for readers by glob")
    after = read_manifest(URL, "late-orders")
    assert [part.sha256 for part in after.parts] == [part.sha256 for part in before.parts]
    assert (after.run, after.generation, after.model, after.inputs) == (
        before.run,
        before.generation,
        before.model,
        before.inputs,
    )
    assert read_predictions(URL, "late-orders").equals(frame)
    assert manifests.decode_checked(store.read("late-orders/dt=2024-02-05/_manifest.json"))["file"]


def test_entry_of_an_earlier_version_is_told_key_by_key_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        params.loads(chaos_upgrade.FIRST_PARAMS)
    lines = str(caught.value).splitlines()
    assert lines == [
        "params.yaml: products.tiny.source.retake must have moved to decisions/, and has not; run python -m "
        "tasks.commands migrate-decisions, then delete it",
        "params.yaml: products.tiny.drift.accepted (or day.accepted) must have moved to decisions/, and has not; run "
        "python -m tasks.commands migrate-decisions, then delete it",
        "params.yaml: products.tiny.model.train.patience_epochs is gone; delete it: patience is counted in steps "
        "(patience_steps), which has a default",
    ]
    (tmp_path / "params.yaml").write_text(chaos_upgrade.FIRST_PARAMS)
    assert decide.migrate("Ada", date(2026, 11, 29)).splitlines() == [
        "2 decisions written to decisions/; read and commit them",
        "delete from params.yaml: products.tiny.day.accepted, products.tiny.source.retake",
    ]
    product = params.loads(chaos_upgrade.without_gone_keys(chaos_upgrade.FIRST_PARAMS)).product("tiny")
    assert (product.source.late_days, product.drift.max_volume_ratio, product.gates.max_behind_champion) == (7, 4, 0.5)


def test_page_names_every_key_that_is_called_otherwise_or_is_gone():
    gone = {key for _, key in messages.GONE} | {*defaults.RENAMED, *defaults.RENAMED.values(), defaults.RECHECK_DAYS}
    assert gone <= set(re.findall(r"[a-z_]+", PAGE))


def test_page_has_the_commands_of_the_drill():
    for command in ("git checkout --ours params.yaml", "-m tasks.params", "-m tasks.commands migrate-decisions"):
        assert command in PAGE
    assert all(version.revision in PAGE for version in chaos_upgrade.VERSIONS)
