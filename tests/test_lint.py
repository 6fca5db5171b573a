"""Oracle: ruff and mypy, as `make lint` runs them."""

import sys

from conftest import ROOT, call, environment


def test_ruff_finds_nothing():
    env = environment(ROOT / ".lamplighter")
    call(["ruff", "check", "."], ROOT, env)
    call(["ruff", "format", "--check", "."], ROOT, env)


def test_mypy_finds_nothing():
    call([sys.executable, "-m", "mypy"], ROOT, environment(ROOT / ".lamplighter"))
