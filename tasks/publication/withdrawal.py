"""Withdraw a published night, because a person found it wrong: readers are told so, and the pointer goes back.

The night's manifest gives way to one of a higher generation that says who withdrew it and why: one conditional PUT,
after the manifest of before is kept in the history. So a run that was opened before can no longer publish the date, and
a new run replaces the withdrawal. The night file follows, and has no row then; so does the pointer, to the newest night
that stands; where none does it stays, and its reader is told that the night was withdrawn. A withdrawal that died half
way is finished by doing it again.
"""

import uuid
from dataclasses import replace
from pathlib import Path

from tasks.publication import manifests
from tasks.publication.contracts import FORMAT, Manifest, Pointer, Withdrawal
from tasks.publication.manifests import LATEST, NightPlace
from tasks.publication.night_file import scratch_folder, write_night_file
from tasks.publication.object_store import StoredObject
from tasks.publication.relocation import earlier_parts, settle
from tasks.runtime import faults
from tasks.runtime.errors import UserError


def withdraw_night(place: NightPlace, withdrawal: Withdrawal) -> bool:
    """Withdraw the night that is published now; return False where a person has withdrawn it already.

    Raises UserError where no night is published or another one takes its place meanwhile, TransientError where the
    store does not answer.
    """
    current, stored = manifests.read_checked(place.store, place.manifest, Manifest)
    if current is None or stored is None:
        raise UserError(f"{place.store.uri(place.folder)}: a night must be published, and none is; choose another DT")
    is_new = current.withdrawn is None
    with scratch_folder() as scratch:
        if is_new:
            _move_manifest(place, current, stored, withdrawal, scratch)
        faults.failpoint("withdraw: the manifest has moved")
        settle(place, earlier_parts(place), scratch)
    faults.failpoint("withdraw: the night file has followed")
    leave_withdrawn(place)
    faults.failpoint("withdraw: the pointer has moved")
    return is_new


def leave_withdrawn(place: NightPlace) -> Pointer | None:
    """Move the pointer away from this night if it was withdrawn; return where it points to then.

    A publisher does so too, after it has moved the pointer: the night may have been withdrawn in between.
    """
    if manifests.is_withdrawn(place):
        newest = _newest_standing(place)

        def move(current: StoredObject | None) -> bytes | None:
            points_to = manifests.decode_record(current, Pointer).dt if current else None
            if newest is None or points_to != place.as_of:
                return None
            uri = place.store.uri(newest.manifest)
            pointer = Pointer(format=FORMAT, product=place.product, dt=newest.as_of, manifest=uri)
            return manifests.encode_checked(pointer.to_json())

        place.store.update(f"{place.product}/{LATEST}", move)
    return manifests.latest(place.store, place.product)


def _move_manifest(
    place: NightPlace, current: Manifest, stored: StoredObject, withdrawal: Withdrawal, scratch: Path
) -> None:
    generation = manifests.acquire_generation(place, f"withdrawal-{uuid.uuid4()}")
    faults.failpoint("withdraw: the generation is acquired")
    withdrawn = replace(
        current,
        generation=generation,
        supersedes=current.run,
        writer=uuid.uuid4().hex,
        withdrawn=withdrawal,
        file=None,
    )
    withdrawn = replace(withdrawn, file=write_night_file(place, withdrawn, scratch))
    manifests.archive_manifest(place, current.generation, stored)
    faults.failpoint("withdraw: the history is kept")
    moved = place.store.replace(place.manifest, manifests.encode_checked(withdrawn.to_json()), stored)
    manifests.release_generations(place, generation if moved else 0)
    if not moved and not manifests.is_withdrawn(place):
        raise UserError(
            f"{place.store.uri(place.manifest)}: another night has taken this one's place just now; nothing was "
            "withdrawn: look at the new one, and withdraw it if it is wrong too"
        )


def _newest_standing(place: NightPlace) -> NightPlace | None:
    """Return the product's newest night that is published and not withdrawn."""
    for as_of in reversed(manifests.published_dates(place.store, place.product)):
        night = replace(place, as_of=as_of)
        found = manifests.current_manifest(night)
        if found is not None and found.withdrawn is None:
            return night
    return None
