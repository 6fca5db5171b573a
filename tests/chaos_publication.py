"""Publication under faults: every request broken in every way, SIGKILL at every label, publishers against each other.

One campaign, whole in `make chaos` and as a short seeded part in test_chaos.py. Publishers and readers are real
processes, the store is a real S3 server, and the faults happen on the wire (tests/proxy.py) or by SIGKILL. Every
trial begins with an old night that stands and tries to put a new one in its place; readers read all the while.
"""

import contextlib
import io
import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import proxy
from builders import a_repository
from conftest import ROOT
from test_publish import N_PARTS, make_night, place, run_with, tiny

from tasks.publication import manifests
from tasks.publication.object_store import Store
from tasks.publish import publish
from tasks.read import read_predictions
from tasks.runtime.errors import EXIT_TRANSIENT, EXIT_USER_ERROR, TransientError, UserError

OLD, NEW = "old", "newer"
"""The models of the two nights; their names' lengths show in every probability: see make_night."""
N_ROWS = 10
FIRST = date(2024, 3, 1)
RETRIES = 6
WITHOUT_EFFECT = {
    "GET": ("damaged upload",),
    "PUT": ("damaged answer", "cut answer"),
    "HEAD": ("damaged upload", "damaged answer", "cut answer"),
}
"""The faults that a request cannot have: it sends, or is answered by, no body that counts."""
_SPAWN = multiprocessing.get_context("forkserver")


@dataclass
class Tally:
    """What the campaign did, counted while it did it."""

    injected: Counter = field(default_factory=Counter)
    """Faults by kind, kills by label."""
    trials: int = 0
    """Nights that were put in another's place under faults."""
    attempts: int = 0
    """Publishers started."""
    rounds: int = 0
    """Rounds of publishers against each other."""
    reads: int = 0
    """Nights that the readers read and found complete."""
    refused: int = 0
    """Reads that ended with a passing failure, as they may under faults."""

    def rows(self) -> dict[str, int]:
        """For the table."""
        faults = {name: n for name, n in sorted(self.injected.items()) if not name.startswith("killed")}
        return {
            "publication: faults injected into requests": sum(faults.values()),
            **{f"publication:   {name}": n for name, n in faults.items()},
            "publication: kills": sum(n for name, n in self.injected.items() if name.startswith("killed")),
            "publication: nights replaced under faults": self.trials,
            "publication: publishers started": self.attempts,
            "publication: rounds of five publishers at once": self.rounds,
            "publication: nights read meanwhile, each complete": self.reads,
            "publication: reads refused for a passing fault": self.refused,
        }


@dataclass
class Campaign:
    """A prefix of the store, a working folder, and what has been counted."""

    url: str
    folder: Path
    faulty: proxy.Proxy
    """What publishers talk to."""
    seed: int
    tally: Tally = field(default_factory=Tally)
    _days: int = 0

    def new_date(self) -> date:
        """A date with the old night published, and both nights' files to publish from."""
        self._days += 1
        as_of = FIRST + timedelta(days=self._days)
        for model in (OLD, NEW):
            with _inside(self.folder_of(as_of, model)):
                product, _ = make_night(self.url, as_of, N_ROWS, model)
                if model == OLD:
                    publish(product, as_of)
        (self.folder / "watched").with_suffix(".tmp").write_text(as_of.isoformat())
        (self.folder / "watched").with_suffix(".tmp").rename(self.folder / "watched")
        return as_of

    def night(self, as_of: date) -> manifests.NightPlace:
        """A night of the campaign's prefix."""
        return place(self.url, as_of)

    def folder_of(self, as_of: date, model: str) -> Path:
        return self.folder / as_of.isoformat() / model

    def start(self, as_of: date, model: str, generation: int, crash_at: str = "") -> Any:
        """A publisher, as a worker of the run that claimed `generation`."""
        self.tally.attempts += 1
        settings = {
            **_keys(),
            "AWS_ENDPOINT_URL_S3": self.faulty.url,
            "LAMPLIGHTER_CRASH_AT": crash_at,
        }
        folder = str(self.folder_of(as_of, model))
        process = _SPAWN.Process(target=_publish, args=(self.url, folder, as_of, generation, settings))
        process.start()
        return process

    def claim(self, as_of: date, name: str) -> int:
        return manifests.acquire_generation(self.night(as_of), name)

    def retry_until_published(self, as_of: date, model: str, generation: int) -> None:
        """Go on as Airflow does: only what may pass is tried again."""
        for _ in range(RETRIES):
            process = self.start(as_of, model, generation)
            process.join()
            assert process.exitcode in (0, EXIT_TRANSIENT), f"a retry ended with {process.exitcode}"
            if process.exitcode == 0:
                return
        raise AssertionError(f"{RETRIES} retries did not publish")

    def assert_one_complete_night(self, as_of: date, models: tuple[str, ...] = (NEW,)) -> None:
        """The night that stands is one of `models`', all it names is there, and what it replaced is in the history."""
        store = Store(self.url)
        manifest = manifests.current_manifest(self.night(as_of))
        assert manifest is not None
        assert manifest.model.sha256 in models
        assert seen_model(self.url, as_of) == manifest.model.sha256 == seen_by_glob(self.url, as_of)
        kept = manifests.history(self.night(as_of))
        assert kept[0].model.sha256 == OLD
        assert [each.generation for each in kept] == sorted({each.generation for each in kept})
        for each in [manifest, *kept]:
            for part in each.parts:
                assert store.sha256(store.key_of(part.key)) == part.sha256, "nothing may get lost"


def under_faults(campaign: Campaign, sample: int | None = None) -> None:
    """Break each request of a publication in each way: once, and every time that it is sent again.

    With `sample`, only that many of the trials, drawn by the campaign's seed.
    """
    faulty = campaign.faulty
    as_of = campaign.new_date()
    faulty.reset()
    campaign.retry_until_published(as_of, NEW, campaign.claim(as_of, "undisturbed"))
    requests = list(faulty.requests)
    assert len(requests) >= N_PARTS + 6, requests
    trials = [
        (i, kind, often)
        for i, (method, _) in enumerate(requests)
        for kind in proxy.FAULTS
        for often in (False, True)
        if kind not in WITHOUT_EFFECT[method]
    ]
    if sample is not None:
        trials = random.Random(campaign.seed).sample(trials, sample)
    for i, kind, often in trials:
        as_of = campaign.new_date()
        generation = campaign.claim(as_of, "disturbed")
        faulty.reset(_plan(i + 1, kind, often))
        before = faulty.injected.total()
        first = campaign.start(as_of, NEW, generation)
        first.join()
        what = f"{kind} at request {i + 1} {requests[i]}{', again and again' if often else ''}"
        assert faulty.injected.total() > before, f"{what}: was not injected"
        assert first.exitcode in (0, EXIT_TRANSIENT), f"{what}: the publisher ended with {first.exitcode}"
        faulty.reset()
        campaign.retry_until_published(as_of, NEW, generation)
        campaign.assert_one_complete_night(as_of)
        campaign.tally.trials += 1


def under_kills(campaign: Campaign, labels: list[str]) -> None:
    """Kill a publisher at each label, then let its retry go on."""
    for label in labels:
        as_of = campaign.new_date()
        generation = campaign.claim(as_of, "killed")
        victim = campaign.start(as_of, NEW, generation, crash_at=label)
        victim.join()
        assert victim.exitcode == -9, f"{label}: was not reached, the publisher ended with {victim.exitcode}"
        campaign.tally.injected[f"killed at {label}"] += 1
        campaign.retry_until_published(as_of, NEW, generation)
        campaign.assert_one_complete_night(as_of)
        campaign.tally.trials += 1


def killed_at_random(campaign: Campaign, times: int) -> None:
    """Kill publishers at any moment, while requests are slow enough for every moment to be hit."""
    draw = random.Random(campaign.seed)
    for _ in range(times):
        as_of = campaign.new_date()
        generation = campaign.claim(as_of, "killed")
        victim = campaign.start(as_of, NEW, generation)
        time.sleep(draw.uniform(0.05, 0.5))
        if victim.is_alive():
            victim.kill()
            campaign.tally.injected["killed at random"] += 1
        victim.join()
        campaign.retry_until_published(as_of, NEW, generation)
        campaign.assert_one_complete_night(as_of)
        campaign.tally.trials += 1


def against_each_other(campaign: Campaign, rounds: int) -> None:
    """Five publishers at once, in two kinds of rounds by turns."""
    for number in range(rounds):
        as_of = campaign.new_date()
        (_five_runs_of_the_same_inputs if number % 2 else _workers_of_three_runs)(campaign, as_of)
        campaign.tally.rounds += 1


def _five_runs_of_the_same_inputs(campaign: Campaign, as_of: date) -> None:
    """One publishes, the others find its night standing."""
    racers = [campaign.start(as_of, NEW, campaign.claim(as_of, f"run {i}")) for i in range(5)]
    assert _exit_codes(racers) == [0] * 5
    campaign.assert_one_complete_night(as_of)
    moves = [each.model.sha256 for each in manifests.history(campaign.night(as_of))]
    assert moves == [OLD] + [NEW] * (len(moves) - 1)


def _workers_of_three_runs(campaign: Campaign, as_of: date) -> None:
    """Three workers of one run, one of an earlier run and one of a later, which finds the old night right.

    Whatever the order, the later run's night stands in the end, and the workers of the one run agree on whether
    theirs has stood before.
    """
    earlier, mine, later = (campaign.claim(as_of, name) for name in ("earlier", "mine", "later"))
    plan = ((OLD, earlier), (NEW, mine), (NEW, mine), (NEW, mine), (OLD, later))
    codes = _exit_codes([campaign.start(as_of, model, generation) for model, generation in plan])
    assert codes[0] in (0, EXIT_USER_ERROR)
    assert codes[4] == 0, "the latest run is refused by nobody"
    campaign.assert_one_complete_night(as_of, (OLD,))
    night = manifests.current_manifest(campaign.night(as_of))
    assert night is not None
    assert night.generation == later
    stood = any(each.model.sha256 == NEW for each in manifests.history(campaign.night(as_of)))
    assert set(codes[1:4]) == {0 if stood else EXIT_USER_ERROR}, (stood, codes)


def _exit_codes(processes: list[Any]) -> list[int]:
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def labels_of(*modules: str) -> list[str]:
    """The crash points of modules, read from their sources."""
    return [
        label
        for module in modules
        for label in re.findall(r'faults\.failpoint\("([^"]+)"\)', (ROOT / "tasks" / f"{module}.py").read_text())
    ]


def seen_model(url: str, as_of: date) -> str:
    """The model whose complete night a reader sees. Raises AssertionError for anything but one complete night."""
    return model_of(read_predictions(url, "tiny", as_of.isoformat()))


def seen_by_glob(url: str, as_of: date) -> str:
    """The model whose complete night a reader of all Parquet files of the date sees; raises as `seen_model` does."""
    store = Store(url)
    keys = [key for key in store.list(f"tiny/dt={as_of.isoformat()}/") if key.endswith(".parquet")]
    assert len(keys) == 1, f"a glob finds one file of a date, and found {keys}"
    stored = store.read(keys[0])
    assert stored is not None, "the night file is never absent again"
    return model_of(pd.read_parquet(io.BytesIO(stored.body)))


def model_of(frame: pd.DataFrame) -> str:
    """The model of one complete night. Raises AssertionError for anything else."""
    assert sorted(frame["parcel_id"]) == sorted(f"p{i}" for i in range(N_ROWS)), "a night is read whole"
    number = frame["parcel_id"].str.removeprefix("p").astype(int)
    lengths = set(((frame["probability"] - number / 100) * 1000).round().astype(int))
    assert len(lengths) == 1, f"a night is of one model, and this one mixes {lengths}"
    return {len(OLD): OLD, len(NEW): NEW}[lengths.pop()]


@contextlib.contextmanager
def campaign(folder: Path, url: str, seed: int, n_readers: int = 2) -> Iterator[Campaign]:
    """A campaign whose readers read all the while; at the end what they saw is counted, and judged."""
    endpoint = os.environ["AWS_ENDPOINT_URL_S3"]
    a_repository(folder)
    _start_forkserver()
    with proxy.Proxy(endpoint) as faulty, proxy.Proxy(endpoint) as readers_proxy:
        draw = random.Random(seed + 1)
        readers_proxy.reset(lambda _: draw.choice(proxy.FAULTS) if draw.random() < 0.1 else None)
        here = Campaign(url, folder, faulty, seed)
        beside = {**_keys(), "AWS_ENDPOINT_URL_S3": readers_proxy.url}
        readers = [_SPAWN.Process(target=_read_on, args=(url, str(folder), i, beside)) for i in range(n_readers)]
        for reader in readers:
            reader.start()
        try:
            yield here
        finally:
            (folder / "stop").touch()
            for reader in readers:
                reader.join()
        here.tally.injected += faulty.injected + readers_proxy.injected
        for i in range(n_readers):
            seen = json.loads((folder / f"reader-{i}.json").read_text())
            assert not seen["wrong"], seen["wrong"]
            here.tally.reads += seen["reads"]
            here.tally.refused += seen["refused"]


def _start_forkserver() -> None:
    """Publishers and readers are forks of a process that has imported everything, and runs no thread of ours."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    try:
        _SPAWN.set_forkserver_preload(["chaos_publication", "botocore.session", "pyarrow.parquet"])
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.__setitem__("PYTHONPATH", before)


def _keys() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def _plan(number: int, kind: str, often: bool) -> proxy.Plan:
    """Break the request of that number; with `often`, every later one of the same kind to the same key as well."""
    chosen: list[tuple[str, str]] = []

    def plan(request: proxy.Request) -> str | None:
        if request.number == number:
            chosen.append((request.method, request.path))
            return kind
        return kind if often and (request.method, request.path) in chosen else None

    return plan


def _publish(url: str, folder: str, as_of: date, generation: int, settings: dict[str, str]) -> None:
    """A publisher's process; its exit code says how it ended."""
    _be_impatient(settings)
    os.chdir(folder)
    try:
        publish(tiny(url), as_of, replace(run_with(generation), as_of=as_of.isoformat()))
    except UserError:
        os._exit(EXIT_USER_ERROR)
    except TransientError:
        os._exit(EXIT_TRANSIENT)
    os._exit(0)


def _read_on(url: str, folder: str, number: int, settings: dict[str, str]) -> None:
    """A reader's process: reads the date that is being worked on until it is told to stop, and notes what it saw."""
    _be_impatient(settings)
    seen: dict[str, Any] = {"reads": 0, "refused": 0, "wrong": []}
    watched, last = Path(folder) / "watched", ("", OLD)
    while not (Path(folder) / "stop").exists():
        if not watched.exists():
            time.sleep(0.01)
            continue
        time.sleep(0.01)  # leave the publishers some of the processor
        dt = watched.read_text()
        try:
            model = (seen_model if seen["reads"] % 2 else seen_by_glob)(url, date.fromisoformat(dt))
            seen["reads"] += 1
            last = (dt, model)
        except TransientError:
            seen["refused"] += 1
        except (AssertionError, UserError) as error:
            seen["wrong"].append(f"{dt}, last seen {last}: {error}")
    (Path(folder) / f"reader-{number}.json").write_text(json.dumps(seen))


def _be_impatient(settings: dict[str, str]) -> None:
    """Wait briefly where a worker would wait for long: the campaign breaks requests by the hundred."""
    from botocore.retries.standard import ExponentialBackoff

    from tasks.publication import store_client

    os.environ.update(settings)
    store_client.READ_SECONDS = store_client.CONNECT_SECONDS = proxy.HANG_SECONDS / 2  # type: ignore[assignment]
    ExponentialBackoff.delay_amount = lambda *_: 0.01  # type: ignore[method-assign]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        yield


def whole(folder: Path, seed: int) -> dict[str, int]:
    """The whole campaign; returns rows for the table."""
    url = f"s3://lamplighter/chaos-{seed}-{os.getpid()}"
    with campaign(folder, url, seed) as here:
        under_faults(here)
        under_kills(here, labels_of("publish", "publication/publishing", "publication/manifests"))
        killed_at_random(here, 60)
        against_each_other(here, 60)
    return here.tally.rows()
