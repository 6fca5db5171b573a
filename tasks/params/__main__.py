"""Check params.yaml, and show or write what follows from it.

Without arguments the file is checked. With PRODUCT --full its entry is shown with every default and what each key
means. With --write the effective settings are written for DVC, of one product or of all; with --schema the JSON Schema
of the file, for editors, and its description in words, docs/products.md.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from tasks.params import effective
from tasks.params.defaults import renamed
from tasks.params.fields import find_weights
from tasks.params.messages import dotted
from tasks.params.schema import PARAMS_FILE, Params
from tasks.params.yaml_file import parse, raw, read_text
from tasks.runtime.errors import EXIT_USER_ERROR, UserError


def main(arguments: list[str]) -> int:
    """Do what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.params", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("product", nargs="?", help="a product of params.yaml; default: all")
    parser.add_argument("--full", action="store_true", help="show the product's entry with every default")
    parser.add_argument("--write", action="store_true", help=f"write the effective settings to {effective.FOLDER}")
    parser.add_argument("--schema", action="store_true", help="write the JSON Schema and docs/products.md")
    given = parser.parse_args(arguments)
    if given.schema:
        return _write_schema()
    try:
        content = raw(read_text())
        declared = _checked(content)
        names = [declared.product(given.product).name] if given.product else list(declared.products)
        if given.full:
            print("\n".join(effective.explained(declared.products[name]) for name in names))
            return 0
        if given.write:
            print("\n".join(f"{effective.write(declared.products[name])} written" for name in names))
            return 0
        return _report(content, declared)
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR


def _checked(content: Any) -> Params:
    """Return the products, of which each can be run on this machine. Raises UserError listing every mistake."""
    declared, mistakes = None, [f"{PARAMS_FILE}: {line}" for line in _mistakes_of_weights(content)]
    try:
        declared = parse(content)
    except UserError as error:
        mistakes = [*str(error).splitlines(), *mistakes]
    if declared is None or mistakes:
        raise UserError("\n".join(mistakes))
    return declared


def _mistakes_of_weights(content: Any) -> Iterator[str]:
    """Say which weights this machine lacks; a scheduler, which reads the file too, needs none."""
    entries = content.get("products") if isinstance(content, dict) else None
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        model = entry.get("model") if isinstance(entry, dict) else None
        try:
            find_weights(str(model.get("init"))) if isinstance(model, dict) else None
        except ValueError as error:
            yield f"{dotted(('products', str(name), 'model', 'init'))} {error}"


def _write_schema() -> int:
    from tasks.params.documents import json_schema, reference

    for file, module in ((json_schema.SCHEMA_FILE, json_schema), (reference.REFERENCE_FILE, reference)):
        file.write_text(module.text(), "utf-8")
        print(f"{file} written")
    return 0


def _report(content: dict[str, dict[str, object]], declared: Params) -> int:
    for name, entry in content["products"].items():
        for note in renamed(name, entry):
            print(f"{PARAMS_FILE}: {note}", file=sys.stderr)
    print(f"{PARAMS_FILE}: as_of {declared.as_of}, products {', '.join(declared.products)}: no mistakes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
