"""Keep what quarantine took before the split, so that a split that lacks rows can name it."""

from dataclasses import field
from pathlib import Path

from pydantic.dataclasses import dataclass

from tasks.runtime.errors import UserError
from tasks.runtime.files import write_json
from tasks.runtime.records import RECORD, Record

FILE = "losses.json"
MAX_LABELS_LOST = 0.5
"""A larger share of unreadable labels is an error: what is left is no sample of the truth."""
RULES_SHOWN = 3


@dataclass(frozen=True, kw_only=True, config=RECORD)
class Losses(Record):
    """What validation kept back, by rule; texts name columns and rules, never a value."""

    labels_valid: int = 0
    """Labels that were passed on."""
    labels: int = 0
    """Labels in quarantine."""
    unreadable_labels: int = 0
    """Of these, the labels whose own value breaks a rule."""
    rows: int = 0
    """Rows in quarantine."""
    label_rules: dict[str, int] = field(default_factory=dict)
    """Labels in quarantine by `column: rule`."""
    row_rules: dict[str, int] = field(default_factory=dict)
    """Rows in quarantine by `column: rule`."""

    @classmethod
    def read(cls, quarantine: Path) -> "Losses":
        """Return what `validate` counted; nothing where it has not. Raises UserError where its file is damaged."""
        file = quarantine / FILE
        try:
            return cls.from_json(file.read_bytes()) if file.exists() else cls()
        except ValueError:
            raise UserError(
                f"{file}: must be what validate counted, and is damaged; restore it: dvc checkout --force"
            ) from None

    def write(self, quarantine: Path) -> None:
        """Write the file that `read` reads."""
        write_json(quarantine / FILE, self.to_json())

    def __str__(self) -> str:
        """Return what is in quarantine, with counts and rules; empty for nothing."""
        parts = (("labels", self.labels, self.label_rules), ("rows", self.rows, self.row_rules))
        return " and ".join(f"{n:,} {name} ({_shown(rules)})" for name, n, rules in parts if n)

    def check_labels(self, place: str, product: str) -> None:
        """Raise UserError where most of the labels could not be read."""
        n_known = self.labels_valid + self.unreadable_labels
        if self.unreadable_labels > MAX_LABELS_LOST * n_known:
            raise UserError(
                f"{place}: at most {MAX_LABELS_LOST:.0%} of the labels may be in quarantine for their own value, and "
                f"{self.unreadable_labels:,} of {n_known:,} are ({_shown(self.label_rules)}): the others are no sample "
                f"to learn from or be tested on; look at them with make quarantine PRODUCT={product}, and mend the "
                "source or its declaration"
            )


def _shown(rules: dict[str, int]) -> str:
    ordered = sorted(rules.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{rule}: {n:,}" for rule, n in ordered[:RULES_SHOWN]]
    return ", ".join([*shown, "..."] if len(ordered) > RULES_SHOWN else shown)
