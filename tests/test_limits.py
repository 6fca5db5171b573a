"""Oracle: the files themselves, counted: what keeps the house small and its words plain."""

import ast
import doctest
import importlib

import pytest
from conftest import ROOT

MAX_MODULES, MAX_LINES, MAX_FUNCTION_LINES, MAX_TEST_NAME_WORDS, MAX_UNTYPED_DICTS = 14, 350, 60, 14, 19
MAX_DOORS = 16
"""Modules at the root of tasks, each of which is one command."""
FILES = sorted(file for folder in ("tasks", "model", "dags") for file in (ROOT / folder).rglob("*.py"))
FOLDERS = sorted({file.parent for file in FILES})
TESTS = sorted((ROOT / "tests").glob("test_*.py"))
EXAMPLES = [file for file in FILES if ">>>" in file.read_text("utf-8")]
VAGUE = {
    "again",
    "aside",
    "both",
    "here",
    "how",
    "its",
    "mine",
    "ours",
    "rivals",
    "said",
    "some",
    "standing",
    "that",
    "theirs",
    "them",
    "there",
    "these",
    "they",
    "this",
    "those",
    "told",
    "what",
    "who",
    "whose",
    "yours",
}
"""Names that say nothing of what they hold."""


def relative(file):
    return file.relative_to(ROOT).as_posix()


def parse(file):
    return ast.parse(file.read_text("utf-8"))


def bound_names(tree):
    """Every name that a text gives to something, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


@pytest.mark.parametrize("folder", FOLDERS, ids=relative)
def test_folder_holds_few_modules(folder):
    modules = [file.name for file in folder.glob("*.py") if file.name not in ("__init__.py", "__main__.py")]
    assert len(modules) <= (MAX_DOORS if folder == ROOT / "tasks" else MAX_MODULES)


def test_modules_and_their_functions_are_short():
    assert not [relative(file) for file in FILES if len(file.read_text("utf-8").splitlines()) > MAX_LINES]
    for file in FILES:
        for node in ast.walk(parse(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n_lines = node.end_lineno - node.lineno + 1
                assert n_lines <= MAX_FUNCTION_LINES, f"{relative(file)}:{node.lineno}: {node.name}"


def test_names_say_what_they_hold():
    vague = [
        f"{relative(file)}:{line}: {name}"
        for file in FILES
        for name, line in bound_names(parse(file))
        if name.strip("_") in VAGUE
    ]
    assert not vague


def test_few_contracts_are_dictionaries_of_anything():
    found = [
        f"{relative(file)}:{node.lineno}"
        for file in FILES
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]"
    ]
    assert len(found) <= MAX_UNTYPED_DICTS, f"write a dataclass for what has known keys: {found}"


def test_name_of_a_test_is_a_short_claim():
    named = [(file, node.name) for file in TESTS for node in ast.walk(parse(file)) if isinstance(node, ast.FunctionDef)]
    tests = [(relative(file), name) for file, name in named if name.startswith("test_")]
    assert not [each for each in tests if each[1].count("_") > MAX_TEST_NAME_WORDS]


@pytest.mark.parametrize("file", EXAMPLES, ids=relative)
def test_examples_in_docstrings_give_what_they_say(file):
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
