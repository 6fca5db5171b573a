"""Files of weights are looked at before a library is given them: nothing in them may reach outside, or run.

An ONNX file may name other files and other code; a safetensors file may claim any size. What is checked here is
what the formats allow and no model of ours needs. That a file is the very one that was exported is `predict`'s
part: it knows the hash.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

OPERATORS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains whose operators are part of ONNX and ONNX Runtime: any other needs a library of its author's."""
MAX_HEADER_BYTES = 1_000_000
"""Of a safetensors file; a network of ten thousand weights needs as much."""
_DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_DTYPE_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


def check_onnx(file: Path) -> None:
    """Raises ValueError where the file names other files outside its folder, or operators that are not standard."""
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


def check_safetensors(file: Path) -> None:
    """Raises ValueError where the header is too long, is no JSON, or does not fit the file's size."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(
                f"{file} must be safetensors with a header of at most {MAX_HEADER_BYTES:,} bytes, got {length:,} "
                f"in a file of {size:,}; use another file"
            )
        try:
            header = json.loads(opened.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            spans = sorted(tuple(_span(entry)) for entry in tensors.values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{file} must be safetensors, and its header is not; use another file") from None
    ends = [0, *(end for _, end in spans)]
    if [start for start, _ in spans] != ends[:-1] or ends[-1] != size - 8 - length:
        raise ValueError(
            f"{file} must hold its tensors one after another and nothing else, and does not; use another file"
        )


def _span(entry: dict[str, Any]) -> list[int]:
    """Where a tensor lies. Raises ValueError where its shape says another size."""
    start, end = entry["data_offsets"]
    size = _DTYPE_BYTES[entry["dtype"]]
    for length in entry["shape"]:
        if not isinstance(length, int) or length < 0:
            raise ValueError
        size *= length
    if not 0 <= start <= end or end - start != size:
        raise ValueError
    return [start, end]


def _check_place(file: Path, location: str) -> None:
    folder = file.parent.resolve()
    place = folder / location
    inside = place.resolve().is_relative_to(folder) and not Path(location).is_absolute()
    if not location or not inside or place.is_symlink() or not place.is_file():
        raise ValueError(
            f"{file} must keep its weights in its own folder, and names {location!r}; export it into one folder"
        )


def _nodes(parts: list[Any]) -> Iterator[Any]:
    """Every node of graphs and functions, those of branches and loops included."""
    for part in parts:
        for node in part.node:
            yield node
            for attribute in node.attribute:
                yield from _nodes([attribute.g] if attribute.HasField("g") else list(attribute.graphs))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor, wherever the format lets one lie."""
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
