"""Build the wheel: what `tasks.read` imports of the project goes into it, by the name `lamplighter_reader`.

So there is one source of the reader. A module `tasks.publication.manifests` is
`lamplighter_reader.publication.manifests` in the wheel, where its imports are changed and nothing else. Nothing is
written into the working tree.
"""

import ast
import re
import tempfile
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = "lamplighter_reader"
PROJECT = Path(__file__).resolve().parent.parent
IMPORT = re.compile(r"^(\s*(?:from|import)\s+)tasks\b", re.MULTILINE)


def modules_of(name: str, found: dict[str, Path]) -> dict[str, Path]:
    """Add a module of `tasks`, its packages, and all that it imports of `tasks` to those that were found."""
    place = PROJECT / name.replace(".", "/")
    file = next((each for each in (place.with_suffix(".py"), place / "__init__.py") if each.exists()), None)
    if file is None or name in found or name.partition(".")[0] != "tasks":
        return found
    found[name] = file
    if "." in name:
        modules_of(name.rpartition(".")[0], found)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for each in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                modules_of(each, found)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                modules_of(alias.name, found)
    return found


class BuildWithModules(build_py):
    """Build the package with the project's modules in it."""

    def run(self) -> None:
        """Write the package, then the modules of the project beside its own."""
        super().run()
        target = Path(self.build_lib) / PACKAGE
        for name, file in modules_of("tasks.read", {}).items():
            if name != "tasks":
                written = target / file.relative_to(PROJECT / "tasks")
                written.parent.mkdir(parents=True, exist_ok=True)
                written.write_text(IMPORT.sub(rf"\1{PACKAGE}", file.read_text("utf-8")), "utf-8")
        (target / "LICENSE").write_bytes((PROJECT / "LICENSE").read_bytes())
        (target / "py.typed").touch()


scratch = tempfile.mkdtemp()
setup(
    version=tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]["version"],
    cmdclass={"build_py": BuildWithModules},
    options={"build": {"build_base": scratch}, "egg_info": {"egg_base": scratch}},
)
