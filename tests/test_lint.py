"""Oracle: ruff, mypy and import-linter, as `make check` runs them."""

import sys

import pytest
from conftest import ROOT, call, environment


def test_ruff_finds_nothing():
    env = environment(ROOT / ".lamplighter")
    call(["ruff", "check", "."], ROOT, env)
    call(["ruff", "format", "--check", "."], ROOT, env)


@pytest.mark.long
def test_mypy_finds_nothing():
    call([sys.executable, "-m", "mypy"], ROOT, environment(ROOT / ".lamplighter"))


def test_imports_run_downwards_and_in_no_circle():
    printed = call(["lint-imports", "--no-cache"], ROOT, environment(ROOT / ".lamplighter"))
    assert "4 kept, 0 broken" in printed
