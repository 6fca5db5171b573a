"""Report a benchmark: a table for people, JSON for machines, and the machine that it was measured on."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from model.compute import processor

RESULTS = Path(__file__).parent / "results"
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
LIBRARIES = ("torch", "onnxruntime-gpu", "onnxruntime", "openvino", "numpy", "scikit-learn", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One promise, and the figure that was measured."""

    name: str
    wanted: str
    measured: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """The findings of one benchmark; rows of one table have the same columns."""

    name: str
    tables: dict[str, list[dict[str, Any]]]
    """Title to rows: ours, each peer's, the bound, ratios."""
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: bool = True
    """Whether it is written into benchmarks/results: a glance is not."""


def show(result: Result) -> None:
    """Print the tables and whether the targets were met."""
    for title, rows in result.tables.items():
        print(f"\n{title}\n{markdown_table(rows)}")
    if result.targets:
        print(f"\n{target_table(result.targets)}")
    for note in result.notes:
        print(f"* {note}")


def write(result: Result, folder: Path = RESULTS) -> Path:
    """Write <name>.json with the machine and the revision that it was measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{result.name}.json"
    content = {**asdict(result), "machine": machine(), "revision": _revision()}
    del content["kept"]
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return file


def machine() -> dict[str, Any]:
    """Return the processor, memory and libraries at hand; no name by which a machine could be found."""
    features = processor.features()
    return {
        "processor": processor.name(),
        "cores": processor.n_cores(),
        "features": [feature for feature in FEATURES if feature in features],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def target_table(targets: list[Target]) -> str:
    """Return the targets as Markdown."""
    return markdown_table(
        [
            {"target": t.name, "wanted": t.wanted, "measured": t.measured, "met": "yes" if t.met else "no"}
            for t in targets
        ]
    )


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Return rows as Markdown, the columns aligned."""
    columns = list(rows[0])
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [isinstance(rows[0].get(column), int | float) for column in columns]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join(
        "-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)
    )
    return "\n".join([lines[0], rule + "|", *lines[1:]])


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except ModuleNotFoundError:  # PackageNotFoundError is one
        return None


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _revision() -> str:
    """Return the commit, marked where anything but results and their page differs from it."""
    commit, changed = (
        subprocess.run(["git", *command], cwd=RESULTS, capture_output=True, text=True, check=False).stdout.strip()
        for command in (
            ["describe", "--always"],
            ["status", "--porcelain", "--", ":(top)", ":(top,exclude)benchmarks/results", ":(top,exclude)docs"],
        )
    )
    return f"{commit}-dirty" if changed else commit
