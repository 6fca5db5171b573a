"""Answer for a day that `validate` stopped: let it pass, or have it fetched anew; params.yaml says who, and why.

It changes the file and nothing else: a person reads the change, commits it and runs again. The reason to accept a day
goes into the validation report and the manifest of the night, that to retake one into the report of `ingest`.
"""

import subprocess
import sys
from datetime import date
from pathlib import Path

from tasks import params, stage
from tasks.params.edit import edited
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file

ACCEPTED, RETAKE = ("drift", "accepted"), ("source", "retake")
"""Where params.yaml has the days of a product that pass, and those that are fetched anew."""


def accept(product: params.Product, as_of: date, day: str, reason: str, retake: bool = False) -> str:
    """Add the day to those of the product that pass, or are fetched anew.

    Raises UserError for a date or reason that is none.
    """
    text = params.PARAMS_FILE.read_text("utf-8")
    told = f"{reason.strip()} ({_who()})" if reason.strip() else ""
    changed = answered(text, product.name, RETAKE if retake else ACCEPTED, day, told)
    with atomic_file(params.PARAMS_FILE) as aside:
        aside.write_text(changed, "utf-8")
    does = "will be fetched anew" if retake else "may pass"
    return f"{day} of {product.name} {does}; read the change (git diff params.yaml), commit it and run again"


def answered(text: str, product: str, place: tuple[str, str], day: str, reason: str) -> str:
    """A params file that has the day at its place; all else stays as it is written."""
    changed = edited(text, {("products", product, *place, day): reason})
    params.loads(changed)
    return changed


def _who() -> str:
    """The person, as git knows them."""
    asked = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False, cwd=Path.cwd())
    if not asked.stdout.strip():
        raise UserError("git must know who accepts, and does not; run git config user.name 'Your Name'")
    return asked.stdout.strip()


def main() -> None:
    """The command line."""
    parser = stage.parser(accept)
    parser.add_argument("day", help="the day whose rows are right, YYYY-MM-DD")
    parser.add_argument("reason", help="why they are")
    parser.add_argument("--retake", action="store_true", help="they are wrong, and right in the source by now")
    given = parser.parse_args()
    work = lambda: print(accept(*stage.load_product(given.product), given.day, given.reason, given.retake))  # noqa: E731
    sys.exit(stage.exit_code_of("accept", work))


if __name__ == "__main__":
    main()
