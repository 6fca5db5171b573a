"""Draw the picture of a simulation again from its figures, and print its table, without a run.

python -m tasks.commands.simulation docs/quarter.json
"""

import sys
from pathlib import Path

from tasks.commands.simulation.simulate import draw_again
from tasks.stage import exit_code_of

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(exit_code_of("draw", lambda: print(draw_again(Path(sys.argv[1])))))
