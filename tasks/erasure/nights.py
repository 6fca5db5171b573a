"""Publish the nights of a product again without the rows, in order, each under a new generation.

A night's new parts are the old ones without the rows; nothing is scored again. Its manifest moves as any other does, so
that a run which was opened before can no longer publish the date; night file and table follow. Then all that the store
holds of the date and shows the rows is removed at once, whoever may be reading it: parts that were replaced or never
published, and scores of other models, which are written anew.
"""

import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from tasks.erasure.made import fallback_sha256, night_without
from tasks.erasure.partings import part_table
from tasks.erasure.subject import Subject
from tasks.monitoring import shadow
from tasks.monitoring.announcements.outbox import announce, expect
from tasks.monitoring.contracts import SHADOW, NightRecord, Year
from tasks.monitoring.past import key_of
from tasks.publication import manifests
from tasks.publication.contracts import Manifest, ModelHash, Night, Part, PublishedPart
from tasks.publication.manifests import MANIFEST, PARTS, NightPlace
from tasks.publication.night_file import fetch_part, scratch_folder, sync_night_file, write_night_file
from tasks.publication.object_store import Store, StoredObject
from tasks.rows.partitions import n_rows
from tasks.runtime import faults
from tasks.runtime.files import file_sha256

OWN = "erasure-"
"""What the name begins with by which an erasure claims a generation."""
Experiment = Callable[[Manifest], tuple[str | None, str | None]]
"""The commit of the experiment that a manifest names as it is now, and the hash of the valid rows that it scored."""


@dataclass(frozen=True)
class Republished:
    """A night that was published again."""

    as_of: date
    rows: int
    """How many went."""
    uri: str
    """The address of its manifest."""


def nights_of(store: Store, product: str) -> list[NightPlace]:
    """Return the published nights of a product, in order."""
    keys = [key for key in store.list(f"{product}/dt=") if key.endswith(f"/{MANIFEST}")]
    days = sorted({date.fromisoformat(key.removeprefix(f"{product}/dt=")[:10]) for key in keys})
    return [NightPlace(store=store, product=product, as_of=day) for day in days]


def rows_in(place: NightPlace, manifest: Manifest, subject: Subject) -> bool:
    """Return whether the parts of a manifest hold anything of it; one that is missing holds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        return any(_holds(place.store, place.store.key_of(part.key), Path(folder), subject) for part in manifest.parts)


def erase_night_of(place: NightPlace, subject: Subject, experiment: Experiment) -> Republished | None:
    """Take the rows out of a published night and all that lies beside it; None where it had none.

    Raises UserError where a part is not as its manifest says, or a later run publishes meanwhile.
    """
    manifest, found = manifests.current_manifest(place), None
    if manifest is None:
        return None
    name = f"{OWN}{subject.hmac[:16]}"
    with scratch_folder() as scratch:
        if rows_in(place, manifest, subject):
            found = _republish(place, manifest, subject, experiment, scratch, name)
        sync_night_file(place, scratch)
    faults.failpoint("erase: the night file has followed")
    current = manifests.current_manifest(place)
    assert current is not None
    if name in _claims(place):
        manifests.release_generations(place, current.generation)
    _erase_parts(place, current, subject)
    _erase_shadows(place, current, subject)
    if current.rows.erased:  # whoever waits for nights is told of this one, too
        announce(subject.product, place, name)
    return found


def _claims(place: NightPlace) -> set[str]:
    claims, _ = manifests.read_checked(place.store, place.claims, manifests.Claims)
    return {*claims.open.values()} if claims else set()


def _republish(
    place: NightPlace, manifest: Manifest, subject: Subject, experiment: Experiment, scratch: Path, name: str
) -> Republished:
    commit, rows_sha256 = experiment(manifest)
    generation = manifests.acquire_generation(place, name)
    faults.failpoint("erase: the generation is acquired")
    expect(subject.product, place, name)
    folder, n_gone, parts = scratch / "night", 0, []
    folder.mkdir(exist_ok=True)
    for part in manifest.parts:
        file = folder / part.name
        fetch_part(place, part, folder).rename(file)
        n_gone += part_table(file, subject) if subject.is_in_file(file) else 0
        parts.append(Part(name=part.name, rows=n_rows(file), bytes=file.stat().st_size, sha256=file_sha256(file)))
    sha256 = rows_sha256 or fallback_sha256(manifest.inputs.rows_sha256, subject)
    night = night_without(_night_of(manifest), tuple(parts), n_gone, sha256)

    def upload_and_describe() -> Manifest:
        published = []
        for part in night.parts:
            key = place.part(night.run, generation, part.name)
            place.store.create_file(key, folder / part.name)
            faults.failpoint("erase: a part is uploaded")
            full_key = place.store.full_key(key)
            published.append(
                PublishedPart(name=part.name, rows=part.rows, bytes=part.bytes, sha256=part.sha256, key=full_key)
            )
        made = replace(
            manifest,
            run=night.run,
            rows=night.rows,
            parts=tuple(published),
            inputs=night.inputs,
            generation=generation,
            experiment_commit=commit or manifest.experiment_commit,
            writer=uuid.uuid4().hex,
            file=None,
        )
        return replace(made, file=write_night_file(place, made, scratch, folder))

    manifests.commit_manifest(place, night.run, generation, upload_and_describe)
    faults.failpoint("erase: the manifest has moved")
    return Republished(place.as_of, n_gone, place.store.uri(place.manifest))


def _night_of(manifest: Manifest) -> Night:
    parts = tuple(Part(name=each.name, rows=each.rows, bytes=each.bytes, sha256=each.sha256) for each in manifest.parts)
    return Night(
        run=manifest.run,
        as_of=manifest.as_of,
        scored_day=manifest.scored_day,
        rows=manifest.rows,
        accepted=manifest.accepted,
        held=manifest.held,
        schema=manifest.schema,
        parts=parts,
        model=ModelHash(sha256=manifest.model.sha256),
        inputs=manifest.inputs,
    )


def _erase_parts(place: NightPlace, current: Manifest, subject: Subject) -> None:
    """Delete the parts of the date that no manifest names now and that show it."""
    named = {place.store.key_of(part.key) for part in current.parts}
    day = f"dt={place.as_of.isoformat()}"
    for prefix in (f"{place.product}/{PARTS}/{day}/", f"{place.folder}/run="):
        for key in place.store.list(prefix):
            if key not in named and _holds_key(place.store, key, subject):
                place.store.delete(key)
                faults.failpoint("erase: a part is deleted")


def _erase_shadows(place: NightPlace, current: Manifest, subject: Subject) -> None:
    """Write what other models said of the night's rows anew, under the run that it has now, and note it on record."""
    written: dict[str, PublishedPart] = {}
    for key in place.store.list(f"{place.product}/{SHADOW}/dt={place.as_of.isoformat()}/"):
        with tempfile.TemporaryDirectory() as folder:
            file, model = Path(folder) / "scores", key.rpartition("/")[2]
            if not place.store.download(key, file) or not subject.is_in_file(file):
                continue
            part_table(file, subject)
            new = shadow.key_of(place, current.run, model)
            place.store.create_file(new, file)
            written[model] = PublishedPart(
                name=model,
                rows=n_rows(file),
                bytes=file.stat().st_size,
                sha256=file_sha256(file),
                key=place.store.full_key(new),
            )
        faults.failpoint("erase: scores are written anew")
        _note(place, current, written)
        place.store.delete(key)
    _note(place, current, written)


def _note(place: NightPlace, current: Manifest, written: dict[str, PublishedPart]) -> None:
    """Let the night's record be of the run that it has now, with what it says of days that were measured."""

    def follow(stored: StoredObject | None) -> bytes | None:
        year = manifests.decode_record(stored, Year) if stored else Year()
        record = year.nights.get(place.as_of.isoformat())
        if record is None or not current.rows.erased or record.run not in (current.supersedes, current.run):
            return None
        now = _record(record, current, written)
        if now == record:
            return None
        return manifests.encode_checked(replace(year, nights={**year.nights, place.as_of.isoformat(): now}).to_json())

    place.store.update(key_of(place.product, place.as_of.year), follow)


def _record(record: NightRecord, current: Manifest, written: dict[str, PublishedPart]) -> NightRecord:
    shadows = tuple(
        replace(each, part=replace(written[name], name=each.part.name))
        if (name := each.model.removesuffix(".dir")) in written
        else each
        for each in record.shadows
    )
    return replace(record, run=current.run, published=current.rows.published, shadows=shadows)


def _holds_key(store: Store, key: str, subject: Subject) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return _holds(store, key, Path(folder), subject)


def _holds(store: Store, key: str, folder: Path, subject: Subject) -> bool:
    file = folder / "object"
    return store.download(key, file) and subject.is_in_file(file)


def others_in(store: Store, product: str) -> Iterator[str]:
    """Yield the keys of a product that are no part and no file of a night's rows: records, pages, messages."""
    for key in store.list(f"{product}/"):
        if f"/{PARTS}/" not in key and f"/{SHADOW}/" not in key and not key.endswith(".parquet"):
            yield key
