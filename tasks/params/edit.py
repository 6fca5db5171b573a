"""Change values in the text of params.yaml, for a person to read and commit or for a workspace of a run.

Every line that a change leaves alone stays as it is written, comments and all, unless the file has texts or lists
over several lines: then the whole is laid out anew, with the same comments.
"""

import difflib
import io
from collections.abc import Mapping
from typing import Any

from tasks import params
from tasks.runtime.errors import UserError

Place = tuple[str, ...]
"""Such as ("products", "flight-delays", "model", "train", "seed")."""


def edited(text: str, changes: Mapping[Place, Any]) -> str:
    """Return the text with values put in by place; mappings that are absent on the way are made.

    Raises UserError where the text is no YAML, or the changes would touch more than they name.
    """
    import ruamel.yaml

    editor, before, after = ruamel.yaml.YAML(), io.StringIO(), io.StringIO()
    editor.preserve_quotes, editor.width = True, 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    text = text if text.endswith("\n") else text + "\n"  # so that a line can follow the last
    wanted, content = params.raw(text), editor.load(text)
    editor.dump(content, before)
    for place, value in changes.items():
        wanted = _with(wanted, place, value)
        _write(content, place, value)
    editor.dump(content, after)
    changed = _merged(text, before.getvalue(), after.getvalue())
    if params.raw(changed) != wanted:
        raise UserError(
            f"{params.PARAMS_FILE}: {', '.join(map('.'.join, changes))} must be written where nothing else reads it, "
            "and is not; write it out there, without an alias"
        )
    return changed


def _with(content: Any, place: Place, value: Any) -> Any:
    """Return nested dicts with a value put in; those given stay as they were."""
    key, *rest = place
    return {**content, key: _with(content.get(key, {}), tuple(rest), value) if rest else value}


def _write(content: Any, place: Place, value: Any) -> None:
    """Put a value into a document of the editor's; text in quotes, so that 2013-06-30 and no stay text."""
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    *path, key = place
    for step in path:
        if step not in content:
            content[step] = CommentedMap()
            content[step].fa.set_flow_style()
        content = content[step]
    if key not in content and not key.isidentifier():
        key = DoubleQuotedScalarString(key)
    content[key] = DoubleQuotedScalarString(value) if isinstance(value, str) else value


def _merged(text: str, before: str, after: str) -> str:
    """Return `text` with the lines in which `after` differs from `before`, without the editor's own layout."""
    lines, old, new = (each.splitlines(keepends=True) for each in (text, before, after))
    blank = next((i for i, line in enumerate(lines) if line.strip()), 0)  # the editor drops blank lines at the start
    if len(lines) - blank != len(old):
        return after
    changes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    parts = [lines[blank + i : blank + j] if kind == "equal" else new[k:m] for kind, i, j, k, m in changes]
    return "".join([*lines[:blank], *(line for part in parts for line in part)])
