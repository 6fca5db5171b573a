"""Find the folder of weights that `model.init` names, in an installed package or on this disk."""

import importlib.util
from pathlib import Path

FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""Files of BERT-family weights; `model.network.bert` reads them."""


def find_weights(init: str) -> Path | None:
    """Return the folder that `init` names, None for scratch and pretrain.

    Raises: ValueError where it does not exist, or lacks a file.
    """
    kind, _, name = init.partition(":")
    if kind not in ("package", "dir"):
        return None
    folder = Path(name)
    if kind == "package":
        package, _, inner = name.partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"must name an installed package, and {package!r} is not; pip install it, or correct it")
        folder = Path(spec.submodule_search_locations[0]) / inner
    if not folder.is_dir():
        raise ValueError(f"must name a folder that exists, and {str(folder)!r} does not; correct the path")
    missing = [file for file in FILES if not (folder / file).exists()]
    if missing:
        raise ValueError(
            f"must name a folder with {', '.join(FILES)}, and {str(folder)!r} lacks {', '.join(missing)}; "
            "use a folder of BERT-family weights"
        )
    return folder
