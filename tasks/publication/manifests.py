"""What the object store holds of a product's nights, and the one order in which it changes.

    <url>/<product>/dt=D/run=<run>-<generation>/part-00000.parquet ...   immutable
    <url>/<product>/dt=D/_manifest.json                the commit point: it names the parts of the night
    <url>/<product>/dt=D/_history/<generation>.json    immutable: every manifest that stood there before
    <url>/<product>/_latest.json                       pointer to the newest night; never moves back
    <url>/<product>/_claims/dt=D.json                  the generations that were given out

D is as_of. `run` is the hash of all that decides the night's bytes. A *generation* is a number that a run claims
when it is opened: a run opened later has a higher one. The manifest carries the generation of the run that published
it, or that found the very same night standing, and only ever moves to a higher one, by one conditional PUT. So a
worker that wakes after its retry, or after a later run, has published changes nothing; and the parts of a lower
generation that no manifest names can never be named again, which is what lets `tasks.gc` delete them.

Every object of JSON is sealed: `seal` in it is the SHA-256 of all the rest.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import date
from typing import Any

from tasks.publication.object_store import MAX_CAS_ROUNDS, MAX_REQUEST_ATTEMPTS, Store, StoredObject
from tasks.runtime import faults
from tasks.runtime.errors import TransientError, UserError

FORMAT = 1
_NO_CLAIMS: dict[str, Any] = {"last": 0, "open": {}}
MANIFEST, LATEST, HISTORY, CLAIMS = "_manifest.json", "_latest.json", "_history", "_claims"


def night_key(product: str, as_of: date) -> str:
    """The folder of one night."""
    return f"{product}/dt={as_of.isoformat()}"


def manifest_key(product: str, as_of: date) -> str:
    """The commit point of one night."""
    return f"{night_key(product, as_of)}/{MANIFEST}"


def history_key(product: str, as_of: date, generation: int) -> str:
    """Where the manifest of one generation is kept when another takes its place."""
    return f"{night_key(product, as_of)}/{HISTORY}/{generation:06d}.json"


def part_key(product: str, as_of: date, run: str, generation: int, name: str) -> str:
    """The key of one part file."""
    return f"{night_key(product, as_of)}/run={run}-{generation:06d}/{name}"


def encode_checked(content: dict[str, Any]) -> bytes:
    """Readable JSON that says itself whether it arrived whole."""
    return (json.dumps({**content, "seal": _digest(content)}, indent=2, ensure_ascii=False) + "\n").encode()


def decode_checked(stored: StoredObject) -> dict[str, Any]:
    """What was sealed. Raises PassingError where it arrived damaged."""
    try:
        content: dict[str, Any] = json.loads(stored.body)
        if content.pop("seal") == _digest(content):
            return content
    except (ValueError, KeyError, AttributeError):  # no JSON, no UTF-8, no object, no seal
        pass
    raise TransientError(
        f"{stored.uri}: must be as it was written, and arrived damaged; where that stays so, put back the store's "
        "backup of it, or delete it and publish the night again"
    )


def read_checked(store: Store, key: str) -> tuple[dict[str, Any] | None, StoredObject | None]:
    """A sealed object's content, and the object as it stands; twice None where there is none.

    Raises UserError where it arrives damaged however often it is read.
    """
    for attempt in range(1, MAX_REQUEST_ATTEMPTS + 1):
        stored = store.read(key)
        if stored is None:
            return None, None
        try:
            return decode_checked(stored), stored
        except TransientError as error:
            if attempt == MAX_REQUEST_ATTEMPTS:
                raise UserError(str(error)) from None
    raise AssertionError("the last attempt returns or raises")


def current_manifest(store: Store, product: str, as_of: date) -> dict[str, Any] | None:
    """The manifest that stands, or None."""
    return read_checked(store, manifest_key(product, as_of))[0]


def acquire_generation(store: Store, product: str, as_of: date, name: str) -> int:
    """The generation of the run called `name`: higher than all before; the same again while the claim is open."""
    generation = 0

    def add(standing: StoredObject | None) -> bytes | None:
        nonlocal generation
        claims = decode_checked(standing) if standing else _NO_CLAIMS
        known = [int(each) for each, holder in claims["open"].items() if holder == name]
        if known:
            generation = known[0]
            return None
        night = current_manifest(store, product, as_of)  # counts on where somebody has deleted the claims
        generation = max(claims["last"], night["generation"] if night else 0) + 1
        return encode_checked({"last": generation, "open": {**claims["open"], str(generation): name}})

    store.update(_claims_key(product, as_of), add)
    return generation


def release_generations(store: Store, product: str, as_of: date, generation: int) -> None:
    """Forget the claims up to one that has published: the manifest lets none of them move it any more."""

    def remove(standing: StoredObject | None) -> bytes | None:
        claims = decode_checked(standing) if standing else _NO_CLAIMS | {"last": generation}
        later = {each: name for each, name in claims["open"].items() if int(each) > generation}
        return None if later == claims["open"] else encode_checked({**claims, "open": later})

    store.update(_claims_key(product, as_of), remove)


def commit(
    store: Store, product: str, as_of: date, run: str, generation: int, make: Callable[[], dict[str, Any]]
) -> bool:
    """Make the manifest that `make` returns the night's; False where one of the same inputs stands there already.

    `make` is called once the way is free, before anything has changed. Raises UserError where a run opened later has
    published, PassingError where others keep coming first.
    """
    key, made = manifest_key(product, as_of), None
    for _ in range(MAX_CAS_ROUNDS):
        rivals = _open_claims(store, product, as_of)  # before the manifest: who has settled since is seen in that
        night, standing = read_checked(store, key)
        if night is not None and night["run"] == run:
            if not any(night["generation"] < rival < generation for rival in rivals):
                return False
            # An earlier run may still publish something else; found anew by ours, this night outranks it.
            ours = {**night, "generation": generation}
        elif night is not None and night["generation"] >= generation:
            raise_if_fenced(store, product, as_of, night, run, generation)
            return True
        else:
            made = made or make()
            ours = {**made, "supersedes": night["run"] if night else None}
        if night is not None and standing is not None:
            archive_manifest(store, history_key(product, as_of, night["generation"]), standing)
        faults.failpoint("publish: the history is kept")
        if store.replace(key, encode_checked(ours), standing):
            return night is None or night["run"] != run
    raise TransientError(f"{store.uri(key)}: other writers moved the manifest {MAX_CAS_ROUNDS} times while we tried")


def advance_latest(store: Store, product: str, as_of: date) -> None:
    """Move the pointer to this night, unless it points to it or to a later one."""
    pointer = {
        "format": FORMAT,
        "product": product,
        "dt": as_of.isoformat(),
        "manifest": store.uri(manifest_key(product, as_of)),
    }

    def move(standing: StoredObject | None) -> bytes | None:
        return None if standing and decode_checked(standing)["dt"] >= as_of.isoformat() else encode_checked(pointer)

    store.update(f"{product}/{LATEST}", move)


def history(store: Store, product: str, as_of: date) -> list[dict[str, Any]]:
    """The manifests that stood before the one that stands, oldest first."""
    found = [read_checked(store, key)[0] for key in store.list(f"{night_key(product, as_of)}/{HISTORY}/")]
    return [manifest for manifest in found if manifest is not None]


def archive_manifest(store: Store, key: str, standing: StoredObject) -> None:
    """Keep a manifest before it is replaced. Its bytes are settled, so that all who try write the same."""
    if not store.replace(key, standing.body, None):
        kept = store.read(key)
        if kept is None or kept.body != standing.body:
            raise UserError(
                f"{store.uri(key)}: the history must not change, and holds another manifest of this generation; "
                "compare the two, and delete the one that is wrong"
            )


def raise_if_fenced(store: Store, product: str, as_of: date, night: dict[str, Any], run: str, generation: int) -> None:
    """Raise unless our manifest has stood there, and a later one replaced it before we had our answer."""
    before, _ = read_checked(store, history_key(product, as_of, generation))
    if before is not None and before["run"] == run:
        return
    ours = f"{store.uri(manifest_key(product, as_of))}: this run has generation {generation}, and"
    if night["generation"] == generation:
        raise UserError(
            f"{ours} has published another night already (run {night['run']}); a run publishes one night: "
            "start a new run"
        )
    raise UserError(
        f"{ours} a run opened later ({night['experiment']}, generation {night['generation']}) has published; "
        "nothing was changed. To publish this date again, start a new run"
    )


def _open_claims(store: Store, product: str, as_of: date) -> list[int]:
    claims, _ = read_checked(store, _claims_key(product, as_of))
    return [int(each) for each in claims["open"]] if claims else []


def _claims_key(product: str, as_of: date) -> str:
    return f"{product}/{CLAIMS}/dt={as_of.isoformat()}.json"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
