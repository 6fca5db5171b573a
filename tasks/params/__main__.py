"""Check params.yaml and say what is in it: `python -m tasks.params`."""

import sys

from tasks import params
from tasks.runtime.errors import EXIT_USER_ERROR, UserError


def main() -> int:
    """Check the file; return the exit code."""
    try:
        declared = params.load()
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    print(f"{params.PARAMS_FILE}: as_of {declared.as_of}, products {', '.join(declared.products)}: no mistakes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
