"""Name what the object store holds of a product's nights, and change it in the one order that is safe.

    <url>/<product>/_parts/dt=D/run=<run>-<generation>/part-00000 ...   immutable
    <url>/<product>/dt=D/_manifest.json                the commit point: it names the parts of the night
    <url>/<product>/dt=D/predictions.parquet           the night file, for readers by glob; follows the manifest
    <url>/<product>/dt=D/_history/<generation>.json    immutable: every manifest that was replaced
    <url>/<product>/_latest.json                       pointer to the newest night; only a withdrawal moves it back
    <url>/<product>/_claims/dt=D.json                  the generations that were given out
    <url>/<product>/_trainings/<year>.json             what each training reached and what was decided: `tasks.reports`
    <url>/<product>/_past/<year>.json                  what each night predicted and what came true: `tasks.monitoring`
    <url>/<product>/_messages/<kind>/<identity>.json   what people were told: `tasks.monitoring.messages`
    <url>/<product>/_announcements.json                dates to announce: `tasks.monitoring.announcements`
    <url>/<product>/_shadow/dt=D/run=<run>/<model>     what other models say of the rows: `tasks.monitoring.shadow`
    <url>/<product>/_salts/<digit>.json                salts of personal data: `tasks.publication.salts`
    <url>/<product>/_columns/<model>.json              quantiles of training rows: `tasks.monitoring.distances`

D is as_of. `run` is the hash of all that decides the night's bytes. A *generation* is a fencing token: a number that a
run acquires when it is opened, so that a run opened later has a higher one. The manifest carries the generation of the
run that published it, or that found the very same night published, and only ever moves to a higher one, by one
conditional PUT. So a worker that wakes after its retry, or after a later run, has published changes nothing; and the
parts of a lower generation that no manifest names can never be named again, which is what lets `tasks.gc` delete them.

Parts have no suffix and lie apart, so that no glob for *.parquet finds a replaced or an unpublished one.

Every object of JSON carries a checksum: `seal` in it is the SHA-256 of all the rest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TypeVar

from tenacity import retry, retry_if_exception_type, stop_after_attempt

from tasks.publication.contracts import FORMAT, Claims, Manifest, Pointer
from tasks.publication.object_store import MAX_CAS_ROUNDS, Store, StoredObject
from tasks.publication.store_client import MAX_REQUEST_ATTEMPTS
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.records import Record, seal_of

MANIFEST, LATEST, HISTORY, CLAIMS, PARTS = "_manifest.json", "_latest.json", "_history", "_claims", "_parts"
NIGHT_FILE = "predictions.parquet"
R = TypeVar("R", bound=Record)


class Damaged(TransientError):
    """An object of JSON whose checksum does not fit: it arrived damaged, or lies damaged in the store."""


@dataclass(frozen=True, kw_only=True)
class NightPlace:
    """One night in a store."""

    store: Store
    """The store below the product's `publish.url`."""
    product: str
    """The product's name."""
    as_of: date
    """The night's date."""

    @property
    def folder(self) -> str:
        """Return the key prefix of the night."""
        return f"{self.product}/dt={self.as_of.isoformat()}"

    @property
    def manifest(self) -> str:
        """Return the key of the commit point."""
        return f"{self.folder}/{MANIFEST}"

    @property
    def file(self) -> str:
        """Return the key of the night file."""
        return f"{self.folder}/{NIGHT_FILE}"

    @property
    def claims(self) -> str:
        """Return the key of the generations that were given out."""
        return f"{self.product}/{CLAIMS}/dt={self.as_of.isoformat()}.json"

    def history(self, generation: int) -> str:
        """Return the key under which the manifest of one generation is kept when another takes its place."""
        return f"{self.folder}/{HISTORY}/{generation:06d}.json"

    def part(self, run: str, generation: int, name: str) -> str:
        """Return the key of one part file."""
        day, name = f"dt={self.as_of.isoformat()}", name.removesuffix(".parquet")
        return f"{self.product}/{PARTS}/{day}/run={run}-{generation:06d}/{name}"


def encode_checked(content: Mapping[str, object]) -> bytes:
    """Return readable JSON that carries its own checksum."""
    return (json.dumps({**content, "seal": seal_of(content)}, indent=2, ensure_ascii=False) + "\n").encode()


def decode_checked(stored: StoredObject) -> dict[str, object]:
    """Return the content of an object that carries its checksum. Raises Damaged where that does not fit."""
    try:
        content: dict[str, object] = json.loads(stored.body)
        if content.pop("seal") == seal_of(content):
            return content
    except (ValueError, KeyError, AttributeError):  # no JSON, no UTF-8, no object, no checksum
        pass
    raise Damaged(
        f"{stored.uri}: must be as it was written, and arrived damaged; where that stays so, put back the store's "
        "backup of it, or delete it and publish the night again"
    )


def decode_record(stored: StoredObject, kind: type[R]) -> R:
    """Return the record that an object holds.

    Raises Damaged where its checksum does not fit, UserError where it is none of format 1.
    """
    content = decode_checked(stored)
    try:
        return kind.from_json(content)
    except ValueError as error:
        raise UserError(
            f"{stored.uri}: must be a {kind.__name__.lower()} of format {FORMAT}, and is not; another version of this "
            f"project wrote it: read it with that version, or update this one ({' '.join(str(error).split()[:20])} ...)"
        ) from None


def read_checked(store: Store, key: str, kind: type[R]) -> tuple[R | None, StoredObject | None]:
    """Return an object's record, and the object itself for a conditional replacement; twice None where there is none.

    Raises UserError where it arrives damaged however often it is read.
    """
    try:
        return _read_whole(store, key, kind)
    except Damaged as error:
        raise UserError(str(error)) from None


@retry(retry=retry_if_exception_type(Damaged), stop=stop_after_attempt(MAX_REQUEST_ATTEMPTS), reraise=True)
def _read_whole(store: Store, key: str, kind: type[R]) -> tuple[R | None, StoredObject | None]:
    stored = store.read(key)
    return (decode_record(stored, kind), stored) if stored else (None, None)


def current_manifest(place: NightPlace) -> Manifest | None:
    """Return the manifest of the night as it is published now; None where there is none."""
    return read_checked(place.store, place.manifest, Manifest)[0]


def is_withdrawn(place: NightPlace) -> bool:
    """Return whether a person has withdrawn the night as it is published now."""
    current = current_manifest(place)
    return current is not None and current.withdrawn is not None


def latest(store: Store, product: str) -> Pointer | None:
    """Return the pointer to the product's newest night; None where no night has been published."""
    return read_checked(store, f"{product}/{LATEST}", Pointer)[0]


def published_dates(store: Store, product: str) -> list[date]:
    """Return the dates that have a manifest, in their order; those of nights that were withdrawn too."""
    prefix, end = f"{product}/dt=", f"/{MANIFEST}"
    return [date.fromisoformat(key.removeprefix(prefix)[:10]) for key in store.list(prefix) if key.endswith(end)]


def history(place: NightPlace) -> list[Manifest]:
    """Return the manifests that were replaced, oldest first."""
    keys = place.store.list(f"{place.folder}/{HISTORY}/")
    found = [read_checked(place.store, key, Manifest)[0] for key in keys]
    return [manifest for manifest in found if manifest is not None]


def acquire_generation(place: NightPlace, name: str) -> int:
    """Issue a generation, a fencing token, for the run called `name`: one above every earlier one.

    Idempotent until the generation is released, so that a retry gets the same one.
    """
    generation = 0

    def add(current: StoredObject | None) -> bytes | None:
        nonlocal generation
        claims = decode_record(current, Claims) if current else Claims()
        known = [int(each) for each, holder in claims.open.items() if holder == name]
        if known:
            generation = known[0]
            return None
        manifest = current_manifest(place)  # counts on where somebody has deleted the claims
        generation = max(claims.last, manifest.generation if manifest else 0) + 1
        added = Claims(last=generation, open={**claims.open, str(generation): name})
        return encode_checked(added.to_json())

    place.store.update(place.claims, add)
    return generation


def release_generations(place: NightPlace, generation: int) -> None:
    """Forget the generations up to one that has published: the manifest lets none of them move it any more."""

    def remove(current: StoredObject | None) -> bytes | None:
        claims = decode_record(current, Claims) if current else Claims(last=generation)
        later = {each: name for each, name in claims.open.items() if int(each) > generation}
        return None if later == claims.open else encode_checked(Claims(last=claims.last, open=later).to_json())

    place.store.update(place.claims, remove)


def commit_manifest(place: NightPlace, run: str, generation: int, make: Callable[[], Manifest]) -> bool:
    """Make the manifest that `make` returns the night's; return False where one of the same inputs is there already.

    `make` is called once the way is free, before anything has changed. Raises UserError where a run opened later has
    published, TransientError where other writers keep coming first.
    """
    made: Manifest | None = None
    for _ in range(MAX_CAS_ROUNDS):
        # Read before the manifest: where a run has published and released its generation since, that shows there.
        may_publish = open_generations(place)
        current, stored = read_checked(place.store, place.manifest, Manifest)
        if current is not None and stored is not None and current.run == run and not current.withdrawn:
            if not any(current.generation < other < generation for other in may_publish):
                return False
            # A run with a generation between the two may still publish. Writing the same manifest again under this
            # run's generation fences it out; keys that a newer version of this project has added are kept.
            body = encode_checked({**decode_checked(stored), "generation": generation})
        elif current is not None and current.generation >= generation:
            if not was_published_before(place, run, generation):
                raise _fenced(place, current, generation)
            return True
        else:
            made = made or make()
            body = encode_checked(replace(made, supersedes=current.run if current else None).to_json())
        if current is not None and stored is not None:
            archive_manifest(place, current.generation, stored)
        faults.failpoint("publish: the history is kept")
        if place.store.replace(place.manifest, body, stored):
            return current is None or current.run != run or current.withdrawn is not None
    raise TransientError(
        f"{place.store.uri(place.manifest)}: other writers moved the manifest {MAX_CAS_ROUNDS} times while we tried"
    )


def advance_latest(place: NightPlace) -> None:
    """Move the pointer to this night, unless it points to it or to a later one that stands."""
    uri = place.store.uri(place.manifest)
    pointer = Pointer(format=FORMAT, product=place.product, dt=place.as_of, manifest=uri)

    def move(current: StoredObject | None) -> bytes | None:
        newest = replace(place, as_of=decode_record(current, Pointer).dt) if current else None
        if newest and (newest.as_of == place.as_of or (newest.as_of > place.as_of and not is_withdrawn(newest))):
            return None
        return None if is_withdrawn(place) else encode_checked(pointer.to_json())

    place.store.update(f"{place.product}/{LATEST}", move)


def archive_manifest(place: NightPlace, generation: int, current: StoredObject) -> None:
    """Keep a manifest before it is replaced. Its bytes no longer change, so that all who try write the same."""
    key = place.history(generation)
    if not place.store.replace(key, current.body, None):
        kept, _ = read_checked(place.store, key, Manifest)
        # A manifest whose night was moved to the layout of now is the same one: see `tasks.publication.relocation`.
        if kept is None or kept.writer != decode_record(current, Manifest).writer:
            raise UserError(
                f"{place.store.uri(key)}: the history must not change, and holds another manifest of this generation; "
                "compare the two, and delete the one that is wrong"
            )


def was_published_before(place: NightPlace, run: str, generation: int) -> bool:
    """Return whether this run's manifest was published, and a later one replaced it before the answer came."""
    before, _ = read_checked(place.store, place.history(generation), Manifest)
    return before is not None and before.run == run


def _fenced(place: NightPlace, current: Manifest, generation: int) -> UserError:
    start = f"{place.store.uri(place.manifest)}: this run has generation {generation}, and"
    if current.withdrawn:
        return UserError(
            f"{start} {current.withdrawn.person} has withdrawn the night since it was opened "
            f"({current.withdrawn.reason}); nothing was changed. To publish this date again, start a new run"
        )
    if current.generation == generation:
        return UserError(
            f"{start} has published another night already (run {current.run}); a run publishes one night: "
            "start a new run"
        )
    return UserError(
        f"{start} a run opened later ({current.experiment}, generation {current.generation}) has published; "
        "nothing was changed. To publish this date again, start a new run"
    )


def open_generations(place: NightPlace) -> list[int]:
    """Return the generations whose runs may still publish."""
    claims, _ = read_checked(place.store, place.claims, Claims)
    return claims.generations() if claims else []
