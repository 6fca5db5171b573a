"""A folder apart in which stages train other models of a product, without touching what lies under `data/`."""

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path

from tasks.params import Product

PROJECT = ("constraints.txt", "dvc.yaml", "model", "tasks")
"""What a stage may read of the repository beside its data."""


@contextmanager
def scratch(folder: Path, shared: list[Path]) -> Iterator[None]:
    """Inside, the working directory is `folder`; the `shared` paths are links to those of the present one."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*map(Path, PROJECT), *shared]:
        link = folder / path
        if not os.path.lexists(link) and path.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
    with chdir(folder):
        yield


def movable(product: Product) -> Product:
    """`product` with the path of its weights written out in full, so that another folder finds them too."""
    kind, _, name = product.model.init.partition(":")
    if kind != "dir":
        return product
    return replace(product, model=replace(product.model, init=f"dir:{Path(name).absolute()}"))
