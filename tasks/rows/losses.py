"""Count what quarantine took before the split, so that a split that lacks rows can name it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tasks.rows.partitions import n_rows, partitions, read_table
from tasks.runtime.errors import UserError

MAX_LABELS_LOST = 0.5
"""A larger share of unreadable labels is an error: what is left is no sample of the truth."""
RULES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What validation kept back, by rule; texts name columns and rules, never a value."""

    labels_valid: int = 0
    """Labels that were passed on."""
    labels: int = 0
    """Labels in quarantine."""
    unreadable_labels: int = 0
    """Of these, the labels whose own value breaks a rule."""
    rows: int = 0
    """Rows in quarantine."""
    label_rules: Counter[str] = field(default_factory=Counter)
    """Labels in quarantine by `column: rule`."""
    row_rules: Counter[str] = field(default_factory=Counter)
    """Rows in quarantine by `column: rule`."""

    @classmethod
    def read(cls, valid: Path, quarantine: Path, target: str) -> "Losses":
        """Count the files that `validate` wrote. Shapes: one line of reasons for each row in quarantine."""
        reasons = {name: _reasons(quarantine / f"{name}.parquet") for name in ("labels", "rows")}
        rules = {name: Counter(rule for row in rows for rule in row) for name, rows in reasons.items()}
        return cls(
            labels_valid=sum(map(n_rows, partitions(valid / "labels"))),
            labels=len(reasons["labels"]),
            unreadable_labels=sum(any(rule.startswith(f"{target}: ") for rule in row) for row in reasons["labels"]),
            rows=len(reasons["rows"]),
            label_rules=rules["labels"],
            row_rules=rules["rows"],
        )

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


def _reasons(file: Path) -> list[list[str]]:
    texts = read_table(file, ["reasons"])["reasons"] if file.exists() else ()
    return [str(text).split("; ") for text in texts]


def _shown(rules: Counter[str]) -> str:
    ordered = sorted(rules.items(), key=lambda entry: (-entry[1], entry[0]))
    shown = [f"{rule}: {n:,}" for rule, n in ordered[:RULES_SHOWN]]
    return ", ".join([*shown, "..."] if len(ordered) > RULES_SHOWN else shown)
