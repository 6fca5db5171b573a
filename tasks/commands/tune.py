"""Search better settings of a product and propose them as a patch of params.yaml."""

import sys

from tasks import stage
from tasks.training.tuning import tune


def main() -> None:
    """The command line."""
    parser = stage.parser(tune)
    parser.add_argument("--trials", type=int, default=20, help="how many there are to be in the end (default: 20)")
    parser.add_argument("--knobs", default="", help="search only settings that begin so, such as train or network.d")
    given = parser.parse_args()

    def work() -> None:
        print(f"tune: {tune(*stage.load_product(given.product), given.trials, given.knobs)}", flush=True)

    sys.exit(stage.exit_code_of("tune", work))


if __name__ == "__main__":
    main()
