"""End processes."""

from contextlib import suppress

import psutil


def kill_process_tree(process: int) -> None:
    """Kill a command with all that it has started.

    It has no process group of its own, by which that would be one call: Airflow ends a task by ending the task's.
    """
    with suppress(psutil.NoSuchProcess):
        ours = psutil.Process(process)
        ours.suspend()  # so that it starts nothing more while its children are counted
        for child in ours.children():
            kill_process_tree(child.pid)
        ours.kill()
