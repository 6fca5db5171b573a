"""Fitted preprocessing: a table of columns becomes arrays the network reads.

Everything is fitted on the rows given to `Features.fit` and on nothing else; which rows those are is the caller's
business. What is fitted of a column, and what it becomes, is in `model.features.kinds`. Padding happens later, in
`model.features.batches`.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model.features.encoded import Encoded, Sizes
from model.features.fitting import FittingRows, Table, check_columns
from model.features.kinds import TEXT, columns_of, kind_classes
from model.features.kinds.base import Json, Kind
from model.features.kinds.text import Reading, Text
from model.features.prompts import encode_prompts


@dataclass(frozen=True, kw_only=True)
class Features:
    """Everything fitted that turns a table into `Encoded`."""

    kinds: dict[str, str]
    """Column name to kind, in the order in which columns are read."""
    fitted: dict[str, Kind[Any]]
    """By kind, what was fitted of its columns: an entry for every kind, also without columns."""
    prompt: str | None = None
    """The label that a row asks for, where all columns are read as one text; then `fitted` has texts alone."""

    @classmethod
    def fit(
        cls,
        kinds: dict[str, str],
        rows: Table | Iterable[Table],
        target: np.ndarray | None,
        task: str,
        *,
        max_tokens: int,
        max_windows: int = 1,
        wide_tokens: int = 0,
        tokenizer: Path | None = None,
        label_texts: np.ndarray | None = None,
        answer_in: str | None = None,
        item_columns: Collection[str] = (),
        joining: Iterable[Table] = (),
    ) -> "Features":
        """Fit vocabularies, scales, bins and, unless one is given, a tokenizer on `rows`.

        `rows` is a table, or pieces of one that can be iterated several times and need not fit into memory. Words are
        counted in all rows; of more than `fitting.MAX_FITTED_ROWS` a fixed sample decides scales, bins and cycles.

        Where labels are texts, the tokenizer is trained on these too, and spells them as they are. Where they lie in a
        column of texts, `answer_in`, that is read in windows that overlap. Of `item_columns` all items are known that
        two rows have, however many. Of rows `joining`, which are learnt from too once all is chosen, it is read how far
        their times go on.

        Shapes: target [n] or [n, C], NaN marks rows without a label, which then shape no bins; label_texts object [n];
        None for none.
        Raises: ValueError for an unknown kind, a column that is not there, or no column at all.
        """
        given = FittingRows(
            kinds,
            [rows] if isinstance(rows, Mapping) else rows,
            target,
            task,
            max_tokens=max_tokens,
            max_windows=max_windows,
            wide_tokens=wide_tokens,
            tokenizer=tokenizer,
            label_texts=label_texts,
            answer_in=answer_in,
            item_columns=item_columns,
            joining=joining,
        )
        fitted = {kind.name: kind.fit(columns_of(kinds, kind.name), given) for kind in kind_classes()}
        assert given.n_rows >= 0  # where no kind has read the rows, their columns are checked now
        return cls(kinds=dict(kinds), fitted=fitted)

    @classmethod
    def as_prompts(cls, kinds: dict[str, str], label: str, tokenizer: Tokenizer, max_tokens: int) -> "Features":
        """Return features of rows that a language model reads as texts, by its own tokenizer; nothing is fitted."""
        text = Text({label: None}, Reading(max_tokens=max_tokens), tokenizer)
        return cls(kinds=dict(kinds), fitted={TEXT: text}, prompt=label)

    @property
    def tokenizer(self) -> Tokenizer:
        """Return what texts are spelt by.

        Raises: ValueError without a column of texts, and labels that are texts.
        """
        text = self.fitted[TEXT]
        if not isinstance(text, Text) or text.tokenizer is None:
            raise ValueError(f"kinds must name a column of kind {TEXT}, got {', '.join(self.kinds)}; add one")
        return text.tokenizer

    @property
    def sizes(self) -> Sizes:
        """Return what a network for these features must know."""
        shared: dict[str, int] = {}
        for kind in self.fitted.values():
            shared |= kind.shared_sizes
        return Sizes(columns={name: kind.sizes for name, kind in self.fitted.items()}, **shared)

    def encode(self, table: Table) -> Encoded:
        """Return the table as arrays, row for row.

        Raises: ValueError for a column that is not there.
        """
        check_columns(self.kinds, table)
        arrays: dict[str, np.ndarray] = {}
        if self.prompt is not None:
            arrays = encode_prompts(self.tokenizer, self.kinds, self.prompt, table, self.sizes.max_tokens)
        else:
            for kind in self.fitted.values():
                arrays |= kind.encode(table)
        return Encoded(n_rows=len(table[next(iter(self.kinds))]), arrays=arrays)

    def save(self, folder: Path) -> None:
        """Write `features.json` and, with text columns, `tokenizer.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        content: Json = {"kinds": self.kinds, **({"prompt": self.prompt} if self.prompt is not None else {})}
        # Sequences first, as in the files of older models.
        for kind in sorted(self.fitted.values(), key=lambda kind: not kind.is_sequence):
            content |= kind.to_json()
            kind.save_files(folder)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (folder / "features.json").write_text(text, "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Features":
        """Read back what `save` wrote."""
        content = json.loads((folder / "features.json").read_text("utf-8"))
        kinds = content["kinds"]
        if (label := content.get("prompt")) is not None:
            text = Text.from_json([label], content, folder)
            return cls(kinds=kinds, fitted={TEXT: text}, prompt=label)
        fitted = {kind.name: kind.from_json(columns_of(kinds, kind.name), content, folder) for kind in kind_classes()}
        return cls(kinds=kinds, fitted=fitted)
