"""Say what one object of salts holds: the salts of subjects by their ids, and whom somebody had forgotten.

It is JSON in one line with its own checksum, the `seal` that every object of the store has.
"""

import dataclasses
import json
from collections.abc import Mapping

from pydantic.dataclasses import dataclass

from tasks.publication.object_store import StoredObject
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.records import RECORD, Record, seal_of, seal_of_text

FORMAT = 1


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Forgotten(Record):
    """What stays of a subject whose salt was deleted."""

    decided: str
    """The date of the decision, YYYY-MM-DD."""
    person: str
    """The person who decided."""
    why: str
    """The reason."""

    @property
    def shown(self) -> str:
        """Return it for a person to read."""
        return f"was forgotten on {self.decided} by {self.person} ({self.why})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """The content of one object."""

    product: str
    """The product's name."""
    salts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The salts, 32 hex digits each, by the ids of their subjects."""
    forgotten: Mapping[str, Forgotten] = dataclasses.field(default_factory=dict)
    """Subjects whose salt was deleted, by their ids: their rows are dropped from now on."""

    @property
    def n_subjects(self) -> int:
        """Return how many have a salt or were forgotten: it never becomes smaller."""
        return len(self.salts) + len(self.forgotten)

    def encode(self) -> bytes:
        """Return the bytes of the object."""
        forgotten = {subject: each.to_json() for subject, each in self.forgotten.items()}
        text = json.dumps(
            {"format": FORMAT, "product": self.product, "salts": self.salts, "forgotten": forgotten}, sort_keys=True
        )
        return f'{text[:-1]}, "seal": "{seal_of_text(text)}"}}\n'.encode()

    @classmethod
    def decode(cls, stored: StoredObject) -> "Shard":
        """Return what an object holds.

        Raises TransientError where its checksum does not fit, UserError where it is none of this format.
        """
        try:
            content = json.loads(stored.body)
            is_whole = content.pop("seal") == seal_of(content)
        except (ValueError, KeyError, AttributeError):  # no JSON, no object, no checksum
            is_whole = False
        if not is_whole:
            raise TransientError(
                f"{stored.uri}: salts must be as they were written, and arrived damaged; where that stays so, put back "
                "the store's backup of it"
            )
        if content.get("format") != FORMAT:
            raise UserError(
                f"{stored.uri}: must hold salts of format {FORMAT}, and does not; another version of this project "
                "wrote it: update this one"
            )
        forgotten = {subject: Forgotten.from_json(each) for subject, each in content["forgotten"].items()}
        return cls(product=content["product"], salts=content["salts"], forgotten=forgotten)
