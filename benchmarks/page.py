"""Write docs/benchmarks.md: every kept result as tables, with the remarks that lie beside it as <name>.md.

    python -m benchmarks.page

`make bench` does it after each benchmark; a test keeps the page equal to the results.
"""

import json
from pathlib import Path

from benchmarks.report import RESULTS, Target, markdown_table, target_table

PAGE = RESULTS.parent.parent / "docs" / "benchmarks.md"
TITLES = {
    "matrix": "Every kind of product",
    "quality": "How well it predicts",
    "breadth": "Many small products, by default entries",
    "pretraining": "What pretraining is worth where few rows have a label",
    "scoring": "How fast it scores",
    "training": "How fast it trains",
    "scale": "What millions of rows take",
    "night": "What a night costs after years",
    "ahead": "Numbers ahead",
    "gpu": "On a GPU",
}
"""The benchmarks in the order of the page."""
INTRODUCTION = """\
# Benchmarks

<!-- Written by `make bench` from benchmarks/results/; change that, not this page. -->

Lamplighter beside its peers, each comparison within one run of its benchmark, on the same rows and in turns. Ratios
travel to other machines, absolute figures do not. `make bench BENCH=quality` measures one of them again (it installs
the peers in an environment of their own), `make bench` all but `breadth`, which takes many hours of one core, `matrix`
and `ahead`. `breadth`, `matrix` and `night` can be stopped, and go on where they stopped; `make bench BENCH=night
ROWS=200000` measures less of it.

A target that is not met stays in the table. An interval is a 95 % interval."""


def render(folder: Path = RESULTS) -> str:
    """Return the page that the results in `folder` make."""
    found = [name for name in TITLES if (folder / f"{name}.json").exists()]
    return "\n\n".join([INTRODUCTION, *(_section(folder, name) for name in found)]) + "\n"


def write_page() -> None:
    """Write docs/benchmarks.md."""
    PAGE.write_text(render(), "utf-8")


def _section(folder: Path, name: str) -> str:
    result = json.loads((folder / f"{name}.json").read_text("utf-8"))
    machine = result["machine"]
    gpu = machine["gpu"] or "no GPU"
    libraries = ", ".join(f"{library} {version}" for library, version in machine["libraries"].items())
    parts = [
        f"## {TITLES[name]}",
        f"Measured at revision {result['revision']} on {machine['cores']} cores ({machine['processor']}: "
        f"{', '.join(machine['features'])}), {machine['memory_gib']} GiB, {gpu}, "
        f"Python {machine['python']}, {libraries}.",
    ]
    remarks = folder / f"{name}.md"
    if remarks.exists():
        parts.append(remarks.read_text("utf-8").strip())
    if result["targets"]:
        parts.append(target_table([Target(**target) for target in result["targets"]]))
    for title, rows in result["tables"].items():
        parts.append(f"### {title}\n\n{markdown_table(rows)}")
    if result["notes"]:
        parts.append("\n".join(f"* {note}" for note in result["notes"]))
    return "\n\n".join(parts)


if __name__ == "__main__":
    write_page()
