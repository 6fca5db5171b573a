"""Run one stage and print what it took, in a process of its own: `python measured.py STAGE PRODUCT`.

Called by path in a workspace, under the PYTHONPATH of the revision that is measured. The last line it prints is JSON:
the seconds of the stage itself, imports that it makes included, and the most memory of its own that the process held,
without the files that it maps (Linux's /proc).
"""

import importlib
import json
import sys
import threading
import time
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.02


def main() -> None:
    """Run the stage, and print what it said and took."""
    name, product = sys.argv[1:]
    stage = getattr(importlib.import_module(f"tasks.{name}"), name)
    load_product = importlib.import_module("tasks.stage").load_product
    declared, as_of = load_product(product)
    peak, done = [0.0], threading.Event()
    watch = threading.Thread(target=_watch, args=(peak, done), daemon=True)
    watch.start()
    started, cpu = time.monotonic(), time.process_time()
    summary = stage(declared, as_of)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
    done.set()
    watch.join()
    print(json.dumps({"summary": str(summary), "work": seconds, "work_cpu": cpu_seconds, "own_mib": peak[0]}))


def _watch(peak: list[float], done: threading.Event) -> None:
    """Keep the most memory of its own that this process is seen to hold."""
    while not done.wait(SECONDS_BETWEEN_LOOKS):
        lines = Path("/proc/self/status").read_text().splitlines()
        own = sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
        peak[0] = max(peak[0], own / 1024)


if __name__ == "__main__":
    main()
