"""Let a day pass that `validate` stopped because it differs in kind: write who accepts it, and why, into params.yaml.

It changes the file and nothing else: a person reads the change, commits it and runs again. The reason goes into the
validation report and the manifest of the night.
"""

import subprocess
import sys
from datetime import date
from pathlib import Path

from tasks import params, stage
from tasks.edit import edited
from tasks.errors import UserError
from tasks.files import whole_file


def accept(product: params.Product, as_of: date, day: str, reason: str) -> str:
    """Add the day to `day.accepted` of the product. Raises UserError for a date or reason that is none."""
    text = params.PARAMS_FILE.read_text("utf-8")
    changed = accepted(text, product.name, day, f"{reason.strip()} ({_who()})" if reason.strip() else "")
    with whole_file(params.PARAMS_FILE) as aside:
        aside.write_text(changed, "utf-8")
    return f"{day} of {product.name} may pass; read the change (git diff params.yaml), commit it and run again"


def accepted(text: str, product: str, day: str, reason: str) -> str:
    """A params file in which the day is accepted; all else stays as it is written."""
    changed = edited(text, {("products", product, "day", "accepted", day): reason})
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
    given = parser.parse_args()
    work = lambda: print(accept(*stage.declared(given.product), given.day, given.reason))  # noqa: E731
    sys.exit(stage.guarded("accept", work))


if __name__ == "__main__":
    main()
