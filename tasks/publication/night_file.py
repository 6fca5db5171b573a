"""Keep all predictions of a night in one file beside its manifest: what a reader by glob sees of a date.

Exactly one object per date matches <url>/<product>/dt=*/**/*.parquet, and it is replaced in one conditional PUT, so
that such a reader sees one whole night, never two, never a half. It follows the manifest: a publisher that dies between
the two leaves the night before, whole, until its retry, the next run or `tasks.gc` writes the file.

A publisher that wakes late cannot put an old night back. It learns the file's ETag before it reads the manifest, and
replaces the file with exactly that ETag; whoever moved the manifest since has changed the file since, or finds it
changed. The file holds its version (run and generation), so that no two versions have the same ETag.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.publication import manifests
from tasks.publication.contracts import Manifest, NightFile, PublishedPart
from tasks.publication.manifests import NightPlace
from tasks.publication.object_store import MAX_CAS_ROUNDS, ObjectHead
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.files import file_sha256, remove_older_than
from tasks.runtime.settings import settings

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "night"
"""The name under which an object's metadata has the version of the night file."""
ABOUT = b"lamplighter"
"""The name under which the file's own metadata says which night it is."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder on the disk of the workspaces, for files as large as a night; it is removed again."""
    nights = settings().home / "nights"
    nights.mkdir(parents=True, exist_ok=True)
    remove_older_than(nights, days=2)  # of publishers that were killed
    with tempfile.TemporaryDirectory(dir=nights) as folder:
        yield Path(folder)


def fetch_part(place: NightPlace, part: PublishedPart, scratch: Path, folder: Path | None = None) -> Path:
    """Return a file with the part's content: in the folder, in `scratch`, or brought there from the store.

    Raises UserError where the store's is not as the manifest says.
    """
    if folder and (folder / part.name).exists() and file_sha256(folder / part.name) == part.sha256:
        return folder / part.name
    key, file = place.store.key_of(part.key), scratch / part.name
    if file.exists() and file_sha256(file) == part.sha256:
        return file
    found = place.store.download(key, file)
    if not found or file_sha256(file) != part.sha256:
        raise UserError(
            f"{place.store.uri(key)}: must be as the manifest says, and is {'damaged' if found else 'missing'}; "
            "publish the night again"
        )
    return file


def version_of(manifest: Manifest) -> str:
    """Return the run and the generation that wrote what readers of a table or a file see of a night."""
    return manifest.file.version if manifest.file else f"{manifest.run}-{manifest.generation:06d}"


def written_by(manifest: Manifest) -> int:
    """Return the generation that wrote a night. A later one that found the very same night changes nothing of it."""
    return int(version_of(manifest).rpartition("-")[2])


def night_rows(
    place: NightPlace, manifest: Manifest, scratch: Path, folder: Path | None = None
) -> "tuple[pa.Schema, Iterator[pa.Table]]":
    """Return the columns of a night, and its rows piece by piece; of a withdrawn night no row.

    The parts are taken from `folder` where they lie there, else from the store by way of `scratch`. Raises UserError
    where a part is not as the manifest says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.rows.partitions import read_pieces

    parts = manifest.parts[:1] if manifest.withdrawn else manifest.parts  # the columns, which all parts share
    files = [fetch_part(place, part, scratch, folder) for part in parts]
    schema = pa.unify_schemas([pq.read_schema(file) for file in files], promote_options="permissive")
    # The types of a shard without gaps may be narrower.
    pieces = (piece.cast(schema) for file in files for piece in read_pieces(file) if not manifest.withdrawn)
    return schema, pieces


def write_night_file(place: NightPlace, manifest: Manifest, scratch: Path, folder: Path | None = None) -> NightFile:
    """Write the night file of a manifest to `scratch`, without holding it in memory; return it as a manifest names it.

    The parts are taken from `folder` where they lie there, else from the store. The same parts give the same bytes. The
    version is the manifest's, or a new one where that names no file yet; of a withdrawn night the file has no row.
    Raises UserError where a part is not as the manifest says.
    """
    import pyarrow.parquet as pq

    from tasks.rows.partitions import table_writer

    version = version_of(manifest)
    schema, pieces = night_rows(place, manifest, scratch, folder)
    schema = schema.with_metadata({**(schema.metadata or {}), ABOUT: _about(place, version)})
    target = scratch / manifests.NIGHT_FILE
    with table_writer(target) as write:
        write(schema.empty_table())
        for piece in pieces:
            write(piece.cast(schema))
    return NightFile(
        key=place.store.full_key(place.file),
        version=version,
        rows=pq.read_metadata(target).num_rows,
        bytes=target.stat().st_size,
        sha256=file_sha256(target),
    )


def sync_night_file(place: NightPlace, scratch: Path, folder: Path | None = None) -> bool:
    """Make the night file that of the current manifest; return False where it is already.

    A file that `write_night_file` has left in `scratch` is used where it is the right one. Raises UserError where a
    part is not as the manifest says, TransientError where other writers keep coming first.
    """
    for _ in range(MAX_CAS_ROUNDS):
        seen = place.store.head(place.file)  # before the manifest: see above
        manifest = manifests.current_manifest(place)
        if manifest is None or manifest.file is None or _is_of(seen, manifest.file):
            return False
        made = scratch / manifests.NIGHT_FILE
        if not made.exists() or file_sha256(made) != manifest.file.sha256:
            write_night_file(place, manifest, scratch, folder)
        if place.store.replace_file(place.file, made, seen, {VERSION: manifest.file.version}):
            return True
    raise TransientError(
        f"{place.store.uri(place.file)}: other writers came first {MAX_CAS_ROUNDS} times while we tried"
    )


def _is_of(seen: ObjectHead | None, file: NightFile) -> bool:
    return seen is not None and (seen.metadata.get(VERSION) == file.version or seen.sha256 == file.sha256)


def _about(place: NightPlace, version: str) -> bytes:
    about = {"product": place.product, "dt": place.as_of.isoformat(), "night": version}
    return json.dumps({**about, "manifest": place.store.full_key(place.manifest)}).encode()
