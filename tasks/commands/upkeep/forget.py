"""Forget a person by deleting the salt of their hash: the cheap way for columns that are declared `pii: salted`.

    make forget PRODUCT=flight-delays KEY=customer=C7 REASON="..."          shows whether there is a salt
    make forget PRODUCT=flight-delays KEY=customer=C7 REASON="..." YES=1    deletes it, for good

Their rows stay where they are, under a hash of which nobody can say any more whose it is; what the source still
delivers of them is dropped. What that forgets and what it does not: docs/erasing.md.
"""

import re
from collections.abc import Callable
from datetime import date

from tasks.commands.arguments import check_reason, given_key
from tasks.erasure.forgetting import earlier_salts, forget, tables_of
from tasks.erasure.subject import LEAST_CHARACTERS, values_of
from tasks.params import Product
from tasks.publication.salts.shard import Forgotten
from tasks.rows.personal_data import subject_id
from tasks.runtime.errors import UserError


def forget_subject(
    product: Product,
    key: str,
    why: str,
    person: str,
    decided: date,
    *,
    yes: bool = False,
    compact: Callable[[], None] = lambda: None,
) -> str:
    """Show whether there is a salt; with `yes`, delete it, also from earlier versions of its object.

    `compact` lets the embedded store give up what was deleted. Raises UserError for a key or reason that is none, or
    where an earlier version has the salt in the end.
    """
    check_reason(why)
    value = salted_value(product, given_key(key))
    if len(value) >= LEAST_CHARACTERS and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", why):
        raise UserError("REASON must not name who is forgotten, as it is kept; say for example 'asked for on ...'")
    subject = subject_id(product, value)
    tables = tables_of(product, subject)
    before = tables[0].state(subject)
    if not yes:
        shown = "has a salt" if before is True else "has none: it never came" if before is False else before.shown
        return f"forget: {product.name}: {shown}; nothing was changed: the same with YES=1 deletes it, for good"
    decision = Forgotten(decided=decided.isoformat(), person=person.strip(), why=why.strip())
    for table in tables:
        forget(table, subject, decision)
    compact()
    if left := [each for table in tables for each in earlier_salts(table, subject)]:
        raise UserError(
            f"forget: the store must give up earlier versions of salts, and keeps {len(left)}, such as {left[0]}; let "
            "its rules allow it, then run the same again"
        )
    done = "its salt is deleted" if before is True else "it had no salt" if before is False else before.shown
    return (
        f"forget: {product.name}: {done}; nobody can say any more whose the stored rows are, and its rows are dropped "
        "when the source delivers them again"
    )


def salted_value(product: Product, key: str) -> str:
    """Return the value that KEY gives to a salted column. Raises UserError where it names none."""
    salted = [name for name, way in product.pii.items() if way == "salted"]
    if not salted:
        raise UserError(
            f"products.{product.name}.pii must declare a column salted, and declares none: its rows are forgotten by "
            "make erase"
        )
    values = values_of(product, key)
    if len(values) > 1 or not {*values} <= {*salted} or not all(value.strip() for value in values.values()):
        raise UserError(f"KEY must be column=value with a salted column ({', '.join(salted)}); write it so")
    return next(iter(values.values()))
