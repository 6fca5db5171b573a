"""Erase rows step by step. Every step looks for what is left to do, so that it may be killed anywhere and begun again.

The order is that of what could bring the rows back. First the decision is in the origin, so that no run ingests them
again; then the origin says so to runs that were opened before. Experiments get new data beside the old, and nights are
published anew from what was published. Only when all of that stands are old data removed, and last a search through
everything must find nothing.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from tasks.erasure import beside, disk, nights
from tasks.erasure.experiments import Rewriting, rewrite_experiments
from tasks.erasure.journal import Journal, note_in_origin, read_journal, write_journal
from tasks.erasure.pool import Pool, expanded, locks_in, others_of, pool_of
from tasks.erasure.raw import RawErasure
from tasks.erasure.subject import Subject
from tasks.publication.contracts import Manifest
from tasks.publication.object_store import Store
from tasks.reports.kept import key_of_page
from tasks.rows.intake.erased import Tombstone
from tasks.runs.dvc import lock_at
from tasks.runs.experiments import experiments
from tasks.runs.objects import FOLDER
from tasks.runs.registry.tags import registry_of
from tasks.runs.registry.versions import ban, deprecate
from tasks.runs.retention import clone_all
from tasks.runtime import faults
from tasks.runtime.git import git
from tasks.runtime.paths import MADE, Paths
from tasks.runtime.settings import settings, task_logs


@dataclass
class Found:
    """What holds the rows, before anything is changed."""

    objects: int = 0
    """Files of data in cache or remote."""
    experiments: list[str] = field(default_factory=list)
    """Names of runs whose data hold them."""
    nights: list[str] = field(default_factory=list)
    """Dates of published nights that hold them."""
    models: list[str] = field(default_factory=list)
    """Versions that have learnt from them."""
    rows: dict[str, int] = field(default_factory=dict)
    """Raw rows by event date, as the newest run has them."""
    corrected: set[tuple[str, str, str]] = field(default_factory=set)
    """Kind, date and id of rows, as corrections name them."""

    @property
    def is_nothing(self) -> bool:
        """Return whether nothing holds them."""
        return not (self.objects or self.experiments or self.nights)


@dataclass
class Erasing:
    """The erasure of one subject."""

    subject: Subject
    pool: Pool
    others: set[str]
    """The hashes of data that other products name."""
    journal: Journal

    @property
    def product(self) -> str:
        """Return the product's name."""
        return self.subject.product.name

    @property
    def store(self) -> Store:
        """Return where its nights lie."""
        return Store(self.subject.product.publish.url)

    @property
    def clone(self) -> Path:
        """Return the clone of the origin."""
        return self.pool.clone

    def found(self) -> Found:
        """Return what holds the rows. Changes nothing."""
        places = nights.nights_of(self.store, self.product)
        rows, corrected = self._rows()
        return Found(
            rows=rows,
            corrected=corrected,
            objects=len(self._going()),
            experiments=sorted(each.name for each in experiments(self.product) if self._holds(each.commit)),
            nights=[
                each.as_of.isoformat()
                for each in places
                if (manifest := nights.manifests.current_manifest(each))
                and nights.rows_in(each, manifest, self.subject)
            ],
            models=self._versions_of({*self.journal.models} | self._learnt()),
        )

    def _rows(self) -> tuple[dict[str, int], set[tuple[str, str, str]]]:
        """Return the raw rows that go, by event date, and as corrections name them: of all states of raw data."""
        rows, corrected = dict[str, int](), set[tuple[str, str, str]]()
        commits = {each.as_of: each.commit for each in experiments(self.product)}
        for _, commit in sorted(commits.items())[-1:]:
            raw = lock_at(self.clone, commit).outs().get(str(Paths(self.product).raw), "")
            files = self.pool.listed(raw) or {}
            if not {*files.values()} & self.pool.holding or not all(map(self.pool.has, files.values())):
                continue
            with tempfile.TemporaryDirectory(dir=self.pool.scratch) as folder:
                for place, each in files.items():
                    self.pool.bring(each, Path(folder) / place)
                erasure = RawErasure(Path(folder), self.subject, self.subject.is_in_file)
                erasure.erase()
            rows, corrected = dict(erasure.rows), erasure.corrected
        return rows, corrected

    def _holds(self, commit: str) -> bool:
        outs = lock_at(self.clone, commit).outs().values()
        return bool(expanded(self.pool, outs) & self.pool.holding)

    def note(self) -> None:
        """Keep what was found, here and in the origin, before anything is changed."""
        holding, learnt = self._going(), self._learnt()
        onnx = {each for each in learnt if expanded(self.pool, [each]) & holding}
        self.journal = write_journal(
            self.subject,
            replace(
                self.journal,
                objects=tuple(sorted({*self.journal.objects, *holding, *self.pool.folders_with(holding)})),
                models=tuple(sorted({*self.journal.models, *learnt})),
                showing=tuple(sorted({*self.journal.showing, *onnx})),
            ),
        )

    def _going(self) -> set[str]:
        """Return the hashes of files that go: those that show the rows, and what models that learnt from them made up.

        A made row may be a copy of theirs in all but the key, which cannot be told.
        """
        paths = Paths(self.product)
        lists = [self.pool.listed(each) or {} for each in self._of_learnt("evaluate", paths.made_rows)]
        made_up = {files[MADE] for files in lists if MADE in files}
        return (self.pool.holding | made_up) - self.others

    def _learnt(self) -> set[str]:
        """Return the hashes of exported models that have learnt from the rows."""
        return self._of_learnt("export", Paths(self.product).onnx)

    def _of_learnt(self, stage: str, path: Path) -> set[str]:
        """Return the hashes of an output of the runs whose splits hold the rows, or are lost on that account."""
        splits_path, found = str(Paths(self.product).splits), set[str]()
        for commit in locks_in(self.clone):
            lock = lock_at(self.clone, commit)
            splits = lock.outs(f"split@{self.product}").get(splits_path)
            made = lock.outs(f"{stage}@{self.product}").get(str(path))
            if (
                made
                and splits
                and (splits in self.journal.objects or expanded(self.pool, [splits]) & self.pool.holding)
            ):
                found.add(made)
        return found

    def _versions_of(self, models: set[str]) -> list[str]:
        with registry_of(self.product) as registry:
            return [name for name, commit in registry.versions.items() if registry.content(commit) in models]

    def rewrite(self) -> Rewriting:
        """Give the experiments their new data."""
        rewriting = Rewriting(self.pool, self.subject)
        rewrite_experiments(rewriting, self.clone)
        if self.journal.rows is None or rewriting.rows:
            rows = {**(self.journal.rows or {}), **rewriting.rows}
            self.journal = write_journal(self.subject, replace(self.journal, rows=rows))
        return rewriting

    def republish(self, rewriting: Rewriting) -> list[nights.Republished]:
        """Publish the nights again, in order, and clean what lies beside them."""
        places, done = nights.nights_of(self.store, self.product), []
        by_name = {each.name: each.commit for each in experiments(self.product)}

        def experiment(manifest: Manifest) -> tuple[str | None, str | None]:
            commit = by_name.get(manifest.experiment or "")
            if commit is None:
                return None, None
            git("fetch", "--quiet", "--no-tags", settings().origin, commit, cwd=self.clone)
            valid = lock_at(self.clone, commit).outs().get(str(Paths(self.product).valid), "")
            return commit, rewriting.rows_sha256(valid, manifest.scored_day)

        for place in places:
            if republished := nights.erase_night_of(place, self.subject, experiment):
                print(f"erase: {republished.uri} is published without {republished.rows:,} rows", flush=True)
                done.append(republished)
        beside.erase_in_table(self.store, self.subject.product, places)
        beside.erase_records(self.store, self.product, self.subject, self._pages_of_others())
        beside.erase_simulations(self.store, self.product)
        beside.erase_task_logs(self.subject)
        return done

    def _pages_of_others(self) -> frozenset[str]:
        """Return the keys of the pages of models that have not learnt from the rows, as far as their runs are kept."""
        paths, keys = Paths(self.product), set[str]()
        for each in experiments(self.product):
            outs = lock_at(self.clone, each.commit).outs()
            model, splits = outs.get(str(paths.onnx), ""), outs.get(str(paths.splits), "")
            if model not in {"", *self.journal.models} and self.pool.has(splits):
                keys.add(key_of_page(self.product, each.name, date.fromisoformat(each.as_of)))
        return frozenset(keys)

    def deprecate(self, why: str, person: str) -> list[str]:
        """Mark the models that have learnt from the rows; ban those whose files show them. Return their versions."""
        by = (person, f"{person}@erase")
        versions = deprecate(self.product, self.journal.models, f"rows were erased: {why}", by)
        for version in self._versions_of({*self.journal.showing}):
            with registry_of(self.product) as registry:
                is_banned = registry.content(registry.versions[version]) in registry.effect.banned
            if not is_banned:
                ban(self.product, version, f"its files show rows that were erased: {why}", (person, by[1]))
        return versions

    def remove(self) -> None:
        """Remove the old data from this disk, cache, remote and the versions that a bucket keeps."""
        disk.erase_on_disk(self.subject)
        disk.erase_in_tree(Rewriting(self.pool, self.subject))
        gone = {*self.journal.objects} - self.others
        for place in self.pool.places:
            lists_first = sorted(gone & place.stored.keys(), key=lambda each: (not each.endswith(FOLDER), each))
            place.remove(lists_first)
            faults.failpoint("erase: old data are removed")
            for each in lists_first:
                place.stored.pop(each)
        disk.erase_run_cache({*self.journal.objects})
        for url, prefix in places_with_versions(self.subject, self.pool):
            beside.erase_versions(url, prefix, self.subject, frozenset(gone))

    def done(self) -> None:
        """Note that everything is done."""
        self.journal = write_journal(self.subject, replace(self.journal, done=True))


def places_with_versions(subject: Subject, pool: Pool) -> list[tuple[str, str]]:
    """Return address and prefix of every place whose store may keep versions: nights, table, logs, remote."""
    url, product = subject.product.publish.url, subject.product.name
    found = [(url, f"{product}/"), (url, f"{beside.TABLES}/{product}/")]
    found.append((f"s3://{Store(url).bucket}", "simulations/"))
    if logs := task_logs():
        found.append((logs, ""))
    for place in pool.places:
        if place.odb.fs.protocol == "s3":
            found.append((f"s3://{place.odb.path}", ""))
    return found


@contextmanager
def open_erasing(subject: Subject) -> Iterator[Erasing]:
    """Look at all there is, and yield the erasure of a subject; nothing is changed by looking."""
    settings().home.mkdir(parents=True, exist_ok=True)
    journal = read_journal(subject)
    with tempfile.TemporaryDirectory(prefix="erase-", dir=settings().home) as folder:
        clone = Path(folder) / "clone"
        clone_all(clone)
        with pool_of(clone) as pool:
            others = expanded(pool, others_of(clone, subject.product.name))
            pool.look(subject, others)
            yield Erasing(subject=subject, pool=pool, others=others, journal=journal)


def erase(erasing: Erasing, stone: Tombstone) -> list[nights.Republished]:
    """Erase what was found; return the nights that were published again."""
    erasing.note()
    faults.failpoint("erase: what was found is kept")
    revision = git("rev-parse", "HEAD", cwd=erasing.clone).strip()
    note_in_origin(erasing.subject, stone, erasing.journal, revision)
    faults.failpoint("erase: the origin knows")
    rewriting = erasing.rewrite()
    faults.failpoint("erase: the experiments have moved")
    republished = erasing.republish(rewriting)
    faults.failpoint("erase: the nights are published")
    erasing.deprecate(stone.why, stone.person)
    faults.failpoint("erase: the models are marked")
    erasing.remove()
    faults.failpoint("erase: old data are gone")
    return republished
