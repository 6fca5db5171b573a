"""End processes with all that they have started."""

from contextlib import suppress

import psutil


def kill_process_tree(pid: int) -> None:
    """Kill a process and its descendants.

    A command of a run has no process group of its own, by which that would be one call: Airflow ends a task by ending
    the task's group, and the command must end with it.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.suspend()  # it must start nothing more while its children are counted
        for child in process.children():
            kill_process_tree(child.pid)
        process.kill()
