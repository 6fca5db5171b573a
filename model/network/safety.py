"""Files of weights from elsewhere: nothing in them may reach outside of their folder, or run.

An ONNX file may name other files and other code, which no exported model needs: both are refused. A safetensors file
may claim any size; the library refuses what does not fit. Whether a file is the one that was exported is not checked
here: `predict` compares its hash.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from torch import Tensor

OPERATORS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains whose operators are part of ONNX and ONNX Runtime: any other needs a library of its author's."""


def check_onnx(file: Path) -> None:
    """Refuse an ONNX file that reaches outside of its folder or of the standard.

    Raises: ValueError where the file names other files outside its folder, or operators that are not standard.
    """
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common class
        raise ValueError(f"{file} must be an ONNX file, and cannot be read; export it again") from error
    if not model.HasField("graph"):
        raise ValueError(f"{file} must be an ONNX file, and holds no graph; export it again")
    own = {function.domain for function in model.functions}
    used = {node.domain for node in _nodes([model.graph, *model.functions])}
    foreign = sorted(used - own - OPERATORS)
    if foreign:
        raise ValueError(
            f"{file} must use the operators of ONNX and ONNX Runtime only, and uses those of {', '.join(foreign)}; "
            "export it again without them"
        )
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_place(file, {entry.key: entry.value for entry in tensor.external_data}.get("location", ""))


def load_weights(file: Path) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file by name.

    Raises: ValueError where the file is not one whole safetensors file and nothing else.
    """
    # An exported model is scored without torch.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} must be a safetensors file, and is not: {error}; use another file") from error


def _check_place(file: Path, location: str) -> None:
    folder = file.parent.resolve()
    place = folder / location
    inside = place.resolve().is_relative_to(folder) and not Path(location).is_absolute()
    if not location or not inside or place.is_symlink() or not place.is_file():
        raise ValueError(
            f"{file} must keep its weights in its own folder, and names {location!r}; export it into one folder"
        )


def _nodes(parts: list[Any]) -> Iterator[Any]:
    """Yield every node of graphs and functions, those of branches and loops included."""
    for part in parts:
        for node in part.node:
            yield node
            for attribute in node.attribute:
                yield from _nodes([attribute.g] if attribute.HasField("g") else list(attribute.graphs))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor, wherever the format lets one lie."""
    parts: list[Any] = [model.graph, *model.functions]
    graphs = [model.graph]
    for node in _nodes(parts):
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else attribute.tensors
            sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else attribute.sparse_tensors
            for each in sparse:
                yield from (each.values, each.indices)
            graphs += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    for graph in graphs:
        yield from graph.initializer
        for each in graph.sparse_initializer:
            yield from (each.values, each.indices)
