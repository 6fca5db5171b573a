"""Mark the places at which the tests of crashes kill the process; everywhere else the marks do nothing.

    LAMPLIGHTER_CRASH_AT="publish: the manifest has moved" python -m tasks.publish flight-delays

kills publish by SIGKILL at that label, as a machine that loses power would. The tests find every label by reading the
sources, kill at each, and try again.
"""

import os
import signal


def failpoint(label: str) -> None:
    """Kill this process by SIGKILL where the environment variable LAMPLIGHTER_CRASH_AT is this label."""
    if os.environ.get("LAMPLIGHTER_CRASH_AT") == label:
        os.kill(os.getpid(), signal.SIGKILL)
