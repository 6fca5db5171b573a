"""Oracle: the imports of each stage, read as syntax trees, against what dvc.yaml says that it depends on."""

import ast
import functools
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from tasks import STAGES
from tasks.params import Product
from tasks.training import code

STAGES_OF_DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
DECIDES_NO_BYTE = {
    "tasks/__init__.py": "it names the stages",
    "tasks/stage.py": "it calls a stage and prints its line",
    "tasks/params": "what it reads is named by `params:`, value by value",
    "tasks/runtime/errors.py": "texts of failures",
    "tasks/runtime/faults.py": "it kills in tests alone",
    "tasks/runtime/git.py": "it runs git",
    "tasks/runtime/paths.py": "it names places; an out elsewhere would be missed",
    "tasks/runtime/processes.py": "it ends processes",
    "tasks/runtime/settings.py": "it names places of this machine",
    "tasks/training/code.py": "it names checkpoints, folds and trials",
}
"""What a stage imports and does not depend on, with the reason."""
IMPORTED_BY_NAME = ("tasks/sources", "model/features/kinds")
"""Packages whose modules are found by a name: with any of them a stage imports all."""
NEEDLESS = {
    "model/compute/processor.py",
    "model/features/gguf.py",
    "model/network/bert.py",
    "model/network/language/imported.py",
    "model/training/extraction/spans.py",
    "model/training/generation/continuations.py",
    "model/training/generation/labels.py",
}
"""Files that some stages depend on without an import, lest the folder's ten others be written one by one."""


def files_of(module):
    """The files that importing a dotted name runs, packages first; none for what is not ours."""
    parts, files = module.split("."), []
    if parts[0] not in ("tasks", "model"):
        return []
    for end in range(1, len(parts) + 1):
        path = Path(*parts[:end])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if (ROOT / file).is_file():
                files.append(file.as_posix())
    return files


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"


@functools.cache
def imports(file):
    """The files of ours that a file imports anywhere in it, but not for the type checker alone."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    for node in ast.walk(tree):
        if is_for_types(node):
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each for alias in node.names for each in files_of(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {each for alias in node.names for each in files_of(f"{node.module}.{alias.name}")}
    for package in IMPORTED_BY_NAME:
        if any(name.startswith(f"{package}/") for name in found):
            found |= {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
    return found


@functools.cache
def says_nothing(file):
    """Whether a file is a docstring alone, as that of most packages is."""
    return len(ast.parse((ROOT / file).read_text("utf-8")).body) <= 1


def covers(place, file):
    return file == place or file.startswith(f"{place}/")


def closure(*files):
    """All files of ours that decide what the given ones do, themselves included."""
    found, left = set(), list(files)
    while left:
        file = left.pop()
        if file not in found and not any(covers(place, file) for place in DECIDES_NO_BYTE):
            found.add(file)
            left += imports(file)
    return {file for file in found if not says_nothing(file)}


def files_below(place):
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    assert files, f"{place} must be a Python file or a folder of them"
    return {name for file in files if not says_nothing(name := file.relative_to(ROOT).as_posix())}


def compare(places, wanted, name):
    missing = sorted(file for file in wanted if not any(covers(place, file) for place in places))
    needless = sorted(set().union(*map(files_below, places)) - wanted - NEEDLESS)
    assert not missing, f"{name} must also depend on {', '.join(missing)}, which it imports"
    assert not needless, f"{name} must not depend on {', '.join(needless)}: it imports none; name files, not the folder"


def code_deps(stage):
    return [dep for dep in STAGES_OF_DVC[stage]["do"]["deps"] if dep.startswith(("tasks/", "model"))]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_files_that_it_imports_and_on_no_others(stage):
    compare(code_deps(stage), closure(f"tasks/{stage}.py"), f"dvc.yaml: {stage}")


@pytest.mark.parametrize(
    ("places", "module"),
    [
        (code.PRETRAINING, "pretraining"),
        (code.FINE_TUNING, "fine_tuning"),
        (code.CROSS_VALIDATION, "cross_validation"),
    ],
)
def test_what_identifies_a_training_is_the_code_that_it_imports(places, module):
    compare(places, closure(f"tasks/training/{module}.py"), f"tasks/training/code.py: {module.upper()}")


def test_run_of_a_night_is_decided_by_the_code_that_predict_depends_on():
    from tasks.publication.scoring import CODE

    assert sorted(CODE) == sorted(code_deps("predict"))


@pytest.mark.parametrize("place", DECIDES_NO_BYTE)
def test_what_decides_no_byte_exists(place):
    assert (ROOT / place).exists()


@pytest.mark.parametrize("stage", ["pretrain", "train"])
@pytest.mark.parametrize("package", ["model/scoring", "model/evaluation", "tasks/quality", "tasks/publication"])
def test_trained_weights_outlive_a_change_in(stage, package):
    assert not any(covers(package, file) for file in closure(f"tasks/{stage}.py"))


def test_ingest_names_every_part_of_an_entry_that_its_sources_read():
    fields = {"key", "time", *Product.__dataclass_fields__}
    files = ["tasks/ingest.py", *(path for path in code_deps("ingest") if "sources" in path or "intake" in path)]
    texts = [
        file.read_text("utf-8")
        for path in files
        for file in ((ROOT / path).glob("*.py") if (ROOT / path).is_dir() else [ROOT / path])
    ]
    read = {name for text in texts for name in re.findall(r"\bproduct\.(\w+)", text)} & fields
    named = {
        str(name).partition(".")[0] for name in STAGES_OF_DVC["ingest"]["do"]["params"][1]["data/settings/${key}.json"]
    }
    assert read - {"name"} <= named, read - named
