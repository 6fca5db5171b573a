"""Announcing nights while publishers and whoever comes after them are killed at every label; a real receiver counts.

The law: every version of a night that was committed is announced at least once, none that was not, and the last line of
a date is that of the version that stands.
"""

import contextlib
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from builders import a_product, a_repository
from chaos_publication import labels_of
from test_announcements import AS_OF, claim, soon, waits
from test_messages import Hook
from test_publish import make_night, place

from tasks.monitoring.announcements import outbox
from tasks.monitoring.messages import channels
from tasks.params import Product
from tasks.publication import manifests
from tasks.publication.contracts import Manifest
from tasks.publication.night_file import written_by
from tasks.publish import publish

LABELS = labels_of("monitoring/announcements/outbox", "publication/publishing", "publication/manifests", "publish")
ROUNDS = 3


def whole(folder: Path, seed: int) -> dict[str, int]:
    """Publish a date for each label and round, killed there, and again at another by whoever comes next."""
    os.chdir(folder)
    channels.SECONDS = 60.0  # however busy the machine is
    with receiving() as hook:
        return campaign(hook, seed, [label for _ in range(ROUNDS) for label in LABELS])


@contextlib.contextmanager
def receiving() -> Iterator[Any]:
    """A webhook that keeps what it is sent."""
    hook = Hook()
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    try:
        yield hook
    finally:
        hook.shutdown()
        hook.server_close()


def campaign(hook: Any, seed: int, labels: list[str]) -> dict[str, int]:
    """Kill once at each of some labels, in an empty working directory; returns rows for the table."""
    a_repository(Path())
    chance, n_kills = random.Random(seed), 0
    prefix = f"s3://lamplighter/announced-{uuid.uuid4().hex}"
    product = a_product(publish={"url": prefix, "announce": {"kind": "webhook", "url": hook.url}})
    dates = [AS_OF + timedelta(days=i) for i in range(len(labels))]
    for as_of, label in zip(dates, labels, strict=True):
        if chance.random() < 0.5:  # another night of the date stands
            make_night(prefix, as_of, model="before")
            publish(product, as_of, claim(product, "before", as_of))
        make_night(prefix, as_of)
        run = claim(product, "killed", as_of)
        n_kills += _ends_at(label, lambda as_of=as_of, run=run: publish(product, as_of, run))
        later = chance.choice(LABELS)
        finder = chance.choice(["retry", "watcher", "next run"])
        if finder == "next run":
            make_night(prefix, as_of, model="another model")
            run = claim(product, "next", as_of)
        if finder != "watcher":
            n_kills += _ends_at(later, lambda as_of=as_of, run=run: publish(product, as_of, run))
            publish(product, as_of, run)
        else:
            n_kills += _ends_at(later, lambda: outbox.announce_waiting(product, soon()))
    outbox.announce_waiting(product, soon(days=3))
    assert waits(product) == []
    for as_of in dates:
        lines = [body for body in hook.bodies if body["dt"] == as_of.isoformat()]
        committed = generations(product, as_of)
        assert {line["generation"] for line in lines} == committed, f"{as_of}: {lines}, {committed}"
        if lines:
            assert lines[-1]["generation"] == max(committed)
    return {
        "announcements: kills": n_kills,
        "announcements: dates that were published meanwhile": len(dates),
        "announcements: lines received, each version at least once": len(hook.bodies),
    }


def generations(product: Product, as_of: Any) -> set[int]:
    """The generations of all versions of a night that were committed."""
    night = place(product.publish.url, as_of)
    keys = [night.manifest, *night.store.list(f"{night.folder}/{manifests.HISTORY}/")]
    found = (manifests.read_checked(night.store, key, Manifest)[0] for key in keys)
    return {written_by(manifest) for manifest in found if manifest}


def _ends_at(label: str, work: Callable[[], object]) -> int:
    """Work in a copy of this process that is killed at a label; returns 1, or 0 where the work passed none of it."""
    process = get_context("fork").Process(target=_killed_at, args=(label, work))
    process.start()
    process.join()
    assert process.exitcode in (-9, 0), f"{label}: {process.exitcode}"
    return int(process.exitcode == -9)


def _killed_at(label: str, work: Callable[[], object]) -> None:
    os.environ["LAMPLIGHTER_CRASH_AT"] = label
    work()
