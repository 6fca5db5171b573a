"""Oracle: the repository itself, in which every link, test and command that a document names must be."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import page

DOCS = ROOT / "docs"
GUIDE = "tasks/params/documents/guide.md"
MAX_README_LINES = 150
PAGES = ("reading", "guarantees", "operations", "alarms", "architecture", "benchmarks", "glossary")


def documents() -> list[Path]:
    """The Markdown files that git knows, or would after `git add`; the guide is read as part of docs/products.md."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists() and name != GUIDE]


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(file.read_text("utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", documents(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(file):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(file.read_text("utf-8"))):
        target, _, anchor = link.partition("#")
        place = (file.parent / target).resolve() if target else file
        if re.match(r"[a-z]+:", link):
            continue
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(link)
    assert not broken


def test_readme_is_short_and_links_every_page():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= MAX_README_LINES
    assert all(f"(docs/{name}.md)" in readme for name in PAGES)


def assert_names_tests(text: str) -> None:
    """Fail where a text names no test of the project, or one that is not there."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert named, text
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), f"{file}::{name}"


def test_every_promise_names_a_test_that_exists():
    text = (DOCS / "guarantees.md").read_text("utf-8")
    promises = re.split(r"^\* ", text[: text.index("## Counted")], flags=re.MULTILINE)[1:]
    assert len(promises) > 30
    for promise in promises:
        assert_names_tests(promise)


def test_every_situation_of_operations_names_a_test_that_exists():
    text = (DOCS / "operations.md").read_text("utf-8")
    table = text[text.index("## What can happen") : text.index("## Backups")]
    situations = re.findall(r"^\| (?!situation)(\w.*)$", table, flags=re.MULTILINE)
    assert len(situations) > 50
    for situation in situations:
        assert_names_tests(situation)


def test_every_make_target_of_the_documents_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for file in documents():
        text = file.read_text("utf-8")
        named = re.findall(r"`make ([a-z]+)\b", text) + re.findall(r"^make ([a-z]+)\b", text, flags=re.MULTILINE)
        assert set(named) <= targets, f"{file.name}: {set(named) - targets}"


def test_every_module_that_a_command_of_the_documents_runs_exists():
    for file in documents():
        for name in re.findall(r"python -m ((?:tasks|benchmarks)(?:\.[a-z_]+)*)(?!\.<)\b", file.read_text("utf-8")):
            place = ROOT / Path(*name.split("."))
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), f"{file.name}: {name}"


def test_every_file_that_a_document_names_exists():
    folders = "tests|tasks|model|dags|docs|benchmarks|decisions|examples"
    for file in documents():
        named = re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(file.read_text("utf-8")))
        gone = [name for name in named if not (ROOT / name).exists()]
        assert file.name == "CHANGELOG.md" or not gone, f"{file.name}: {gone}"


def test_tests_that_contributing_runs_exist():
    for line in re.findall(r"pytest (tests/\S+.*)$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.MULTILINE):
        place, *options = shlex.split(line, comments=True)
        text = (ROOT / place).read_text("utf-8")
        assert all(re.search(rf"def test_\w*{word}", text) for word in options if word != "-k"), line


def test_every_word_of_the_glossary_is_used_and_listed_in_order():
    rows = re.findall(r"^\| (\*\*.+?) \|", (DOCS / "glossary.md").read_text("utf-8"), flags=re.MULTILINE)
    words = [re.findall(r"\*\*(.+?)\*\*", row) for row in rows]
    assert [row[0] for row in words] == sorted(row[0] for row in words)
    elsewhere = [file for file in documents() if file.name != "glossary.md"]
    sources = [file for folder in ("tasks", "model", "dags") for file in (ROOT / folder).rglob("*.py")]
    used = "\n".join(file.read_text("utf-8").lower() for file in [*elsewhere, *sources])
    assert len(words) > 20
    for word in (word for row in words for word in row):
        assert re.search(rf"\b{word}", used), word


def test_architecture_lists_every_package():
    text = (DOCS / "architecture.md").read_text("utf-8")
    for floor in ("tasks", "model"):
        table = re.search(rf"^\| {floor}/ .*?\n\n", text, flags=re.DOTALL | re.MULTILINE)
        named = {name for row in re.findall(r"^\| (`.*?) \|", table[0], flags=re.MULTILINE) for name in row.split()}
        packages = {f"`{file.parent.name}`" for file in (ROOT / floor).glob("*/__init__.py")}
        assert packages <= named, packages - named


def test_design_decisions_have_their_three_parts_and_are_all_listed():
    listed = (DOCS / "design-decisions" / "README.md").read_text("utf-8")
    pages = sorted((DOCS / "design-decisions").glob("[0-9]*.md"))
    assert len(pages) >= 11
    for number, file in enumerate(pages, start=1):
        text = file.read_text("utf-8")
        title = re.match(rf"# {number}\. (.+)\n", text)
        assert title, file.name
        assert re.findall(r"^## (\w+)$", text, flags=re.MULTILINE) == ["Context", "Decision", "Consequences"]
        assert f"[{number}]({file.name}) | {title[1]} |" in listed


def test_benchmarks_page_is_that_of_the_kept_results():
    assert page.PAGE.read_text("utf-8") == page.render(), "run python -m benchmarks.page"


def test_licence_is_the_one_that_the_project_declares():
    assert (ROOT / "LICENSE").read_text("utf-8").split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text("utf-8")


BY_HAND = ("commands", "read", "withdrawal", "tuning", "search_space", "trials", "retention", "objects", "versions")
"""Modules whose messages a person sees at once, at a keyboard."""
FAILURES = ("UserError", "TransientError", "GitTimeout", "StoreUnavailable", "CommandFailed", "LostData")


def literal(node: ast.expr) -> str:
    """The text of a message, with … for what differs."""
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def messages_of_tasks() -> list[tuple[str, str]]:
    """Module and text of every failure that a task of a DAG may end with."""
    return [
        (file.relative_to(ROOT).as_posix(), literal(node.args[0]))
        for file in sorted((ROOT / "tasks").rglob("*.py"))
        if not {*file.relative_to(ROOT).with_suffix("").parts} & {*BY_HAND}
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in FAILURES and node.args
    ]


def test_every_alarm_of_a_task_has_a_section_or_a_family():
    """A family is a module that a section names; a module whose messages are new needs a section that names it."""
    text = (DOCS / "alarms.md").read_text("utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    assert all("From `tasks/" in section for section in sections)
    families = {name for section in sections for name in re.findall(r"`(tasks/[\w/]+\.py)`", section)}
    messages = messages_of_tasks()
    assert len(messages) > 80
    assert not sorted({module for module, _ in messages} - families)


def test_every_heading_of_the_alarms_has_words_that_the_code_says():
    sources = [file.read_text("utf-8") for file in (ROOT / "tasks").rglob("*.py")]
    said = " ".join(re.sub(r'"\s*\n\s*f?"', "", source) for source in sources)
    for heading in re.findall(r"^## `(.+)`$", (DOCS / "alarms.md").read_text("utf-8"), flags=re.MULTILINE):
        words = r"[^\n]*".join(map(re.escape, heading.split("…")))
        assert re.search(words, said), heading


def test_ci_runs_every_test_in_two_commands_of_which_each_leaves_out_the_other():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    marks = [re.search(rf"^{name}:.*\n.*-m (.*)$", makefile, flags=re.MULTILINE)[1] for name in ("test", "long")]
    assert marks == ['"not long"', "long"]
    for file in (".ci/run", ".github/workflows/test.yml"):
        called = re.findall(r"^\W*(?:run: )?(make [a-z]+)$", (ROOT / file).read_text("utf-8"), flags=re.MULTILINE)
        assert called == ["make test", "make long"]
