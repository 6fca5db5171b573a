"""Know the pieces of a source that an earlier run took whole, so that they are not read again: seen.json.

A piece is known by its name and the digest of its bytes. It was taken whole where nothing of it was left for a later
run: no row later than the night or without a date, no label that was not due yet.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tasks.params import Product
from tasks.runtime.files import file_sha256, read_json, write_json

FILE = "seen.json"


@dataclass(frozen=True, kw_only=True)
class SeenPiece:
    """A piece of the source as a run read it."""

    digest: str
    """Of its bytes."""
    n_rows: int
    """How many rows it has."""
    days: tuple[str, str] | None
    """The first and last event date of its rows."""
    is_whole: bool
    """Whether nothing of it was left for a later run."""
    evidence: dict[str, int] = field(default_factory=dict)
    """What it adds to the checks of whole columns."""


@dataclass(kw_only=True)
class Seen:
    """The pieces that earlier runs read."""

    pieces: dict[str, SeenPiece] = field(default_factory=dict)
    """By name."""
    declared: str = ""
    """What identifies the declaration by which they were read: under another one all are read again."""

    @classmethod
    def load(cls, folder: Path, committed: str, product: Product) -> "Seen":
        """Return what the index of data/raw/<product> has committed; nothing where the file is another one."""
        declared = _declared(product)
        file = folder / FILE
        if not committed or not file.exists() or file_sha256(file) != committed:
            return cls(declared=declared)
        content = read_json(file)
        if content["declared"] != declared:
            return cls(declared=declared)
        pieces = {
            name: SeenPiece(**{**piece, "days": tuple(piece["days"]) if piece["days"] else None})
            for name, piece in content["pieces"].items()
        }
        return cls(pieces=pieces, declared=declared)

    def is_known(self, name: str, digest: str, since: str, days: Collection[str]) -> bool:
        """Return whether a piece was taken whole, and has no row of a date from `since` on or of one of `days`."""
        piece = self.pieces.get(name)
        if piece is None or not digest or piece.digest != digest or not piece.is_whole:
            return False
        if piece.days is None:
            return True
        first, last = piece.days
        return last < since and not any(first <= day <= last for day in days)

    def save(self, folder: Path) -> str:
        """Write the file and return its digest, which the index commits."""
        pieces = {name: asdict(piece) for name, piece in self.pieces.items()}
        write_json(folder / FILE, {"declared": self.declared, "pieces": pieces})
        return file_sha256(folder / FILE)


def _declared(product: Product) -> str:
    """Return a digest of what decides how a delivery is read."""
    parts: Mapping[str, object] = {
        "source": asdict(product.source),
        "key": product.key,
        "time": product.time,
        "time_zone": product.time_zone,
        "columns": product.columns,
        "target": asdict(product.target),
        "horizon_days": product.predict.lead_days,
        "pii": product.pii,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
