"""Check params.yaml and say what is in it: `python -m tasks.params`."""

import sys

from tasks.params.defaults import renamed
from tasks.params.schema import PARAMS_FILE
from tasks.params.yaml_file import parse, raw, read_text
from tasks.runtime.errors import EXIT_USER_ERROR, UserError


def main(arguments: list[str]) -> int:
    """Check the file; return the exit code."""
    try:
        content = raw(read_text())
        declared = parse(content)
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    for name, entry in content["products"].items():
        for note in renamed(name, entry):
            print(f"{PARAMS_FILE}: {note}", file=sys.stderr)
    print(f"{PARAMS_FILE}: as_of {declared.as_of}, products {', '.join(declared.products)}: no mistakes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
