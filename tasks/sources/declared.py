"""Take the declared columns out of what a source delivers, and tell where one is in no piece of it."""

import json
import re
import unicodedata

import pandas as pd

from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.arrivals import source_columns
from tasks.runtime.errors import UserError
from tasks.sources.formats.dialect import names_in_source


class Columns:
    """The columns of all pieces of a delivery: one that lacks in a piece is missing there."""

    def __init__(self, product: Product, place: str) -> None:
        """Begin with no piece; `place` is where the source is declared."""
        self._product, self._place = product, place
        self._found: dict[str, None] = {}
        self._wanted = [*source_columns(product), product.target.name]
        self._is_read = False
        self.has_known = False

    def add(self, frame: pd.DataFrame) -> None:
        """Note the columns of a piece, by the names that the source gives them."""
        self._is_read = True
        self._found |= dict.fromkeys(str(name) for name in frame.columns if name not in UNREADABLE_COLUMNS)

    def declared(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the declared columns of a piece under the product's names, and those about unreadable rows."""
        lacking = [name for name in self._wanted if name not in frame]
        frame = frame.assign(**{name: pd.Series(None, frame.index, dtype=object) for name in lacking})
        return frame[[*self._wanted, *(name for name in UNREADABLE_COLUMNS if name in frame.columns)]]

    def check_names(self) -> None:
        """Raise UserError where a name of the source is declared that no piece has."""
        known = names_in_source(self._product)
        for name, own in self._product.source.names.items():
            if name not in known:
                raise UserError(
                    f"{self._place}.names must name declared columns, got {name!r}; use one of {', '.join(known)}"
                )
            if own not in self._found and self._is_read and not self.has_known:
                raise UserError(
                    f"{self._place}.names.{name} must be a column of the source, got {own!r}, and none has this name; "
                    "correct it"
                )

    def check(self) -> None:
        """Raise UserError where a declared column is in no piece."""
        names = names_in_source(self._product)
        missing = [name for name in self._wanted if name in names and names[name] not in self._found]
        delivered = [*self._found]
        alike = {name: own for name in missing for own in delivered if _same_letters(own, names[name])}
        hint = f"; are they meant? source.names: {json.dumps(alike, ensure_ascii=False)}" if alike else ""
        if not missing or not self._is_read or self.has_known:
            return
        if len(missing) == len(self._wanted):  # the names may be the cells of a row, and are not shown
            raise UserError(
                f"{self._place} must deliver every declared column, and delivers none of {', '.join(self._wanted)} in "
                f"its {len(delivered)} columns; is its first line a header (source.skip_lines, source.comment), and "
                f"source.delimiter right?{hint}"
            )
        spaced = any(name != name.strip() for name in delivered)
        raise UserError(
            f"{self._place} must deliver every declared column, and lacks {', '.join(missing)}; it has "
            f"{', '.join(repr(name) if name != name.strip() else name for name in delivered)}; "
            + ("set source.skip_space: true" if spaced else "say under source.names what a column is called there")
            + hint
        )


def _same_letters(name: str, other: str) -> bool:
    """Return whether two names differ in spaces, in capitals and in how their accents are encoded alone."""
    one, two = (re.sub(r"\s+", " ", unicodedata.normalize("NFKC", each)).strip().casefold() for each in (name, other))
    return one == two
