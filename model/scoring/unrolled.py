"""The graph of a language model, from the trace of two of its blocks: further ones differ in weights alone.

Tracing takes a time that grows with the blocks, and was most of the export of thirty of them. Whether the whole graph
computes what torch does is checked after each export, on rows.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

from model.network.language.blocks import AdaptedLinear
from model.network.language.model import LanguageModel

TRACED = 2
"""Blocks that are traced: the first one's nodes may hold what all share, the second one's are its own."""
LAYER = "network.blocks.layer."
"""How the names of a block's weights begin in a graph, before its number."""
LAST_MAP = "outer.weight"
"""Of a block, the weight of the product that is added last."""


class _Product(nn.Module):
    """A merged map whose weight lies as an engine reads it."""

    weight: Tensor

    def __init__(self, given: AdaptedLinear) -> None:
        super().__init__()
        self.register_buffer("weight", given.weight.T.contiguous())

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: [..., in] -> [..., out]."""
        return tokens @ self.weight


def first_blocks(network: LanguageModel) -> LanguageModel:
    """Return a network of the first blocks of a merged one, to be traced; it has the same weights, maps transposed."""
    language = replace(network.language, n_layers=min(TRACED, network.language.n_layers))
    short, given = LanguageModel(language, network.sizes, network.target), network.given()
    short.give({name: given[name] for name in short.given()})
    for name, module in list(short.named_modules()):
        if isinstance(module, AdaptedLinear):
            parent, _, last = name.rpartition(".")
            short.get_submodule(parent).add_module(last, _Product(module))
    return short


def add_blocks(model: onnx.ModelProto, network: LanguageModel, past: str, new_past: str) -> None:
    """Add the nodes and weights of the blocks that were not traced to the graph of `first_blocks`.

    `past` and `new_past` are the names of its input and its output of keys and values.
    """
    graph, n_blocks = model.graph, network.language.n_layers
    if n_blocks <= TRACED:
        return
    first, second = (_end_of_block(graph, number) for number in range(TRACED))
    body = list(graph.node[first + 1 : second + 1])
    weights = {name for node in body for name in node.input if name.startswith(f"{LAYER}{TRACED - 1}.")}
    kept = _producer(graph, next(node for node in graph.node if new_past in node.output).input[TRACED - 1])
    assert len(weights) == sum(name.startswith("blocks.layer.0.") for name in network.given()), "a block's own weights"
    added, end, entries = list[onnx.NodeProto](), graph.node[first].output[0], list[onnx.NodeProto]()
    for number in range(TRACED, n_blocks):
        names = {name: f"{name}, block {number}" for node in body for name in node.output}
        names |= {name: name.replace(f"{LAYER}{TRACED - 1}.", f"{LAYER}{number}.") for name in weights}
        names[end] = graph.node[second].output[0] if number == TRACED else added[-1].output[0]
        place = f"place of block {number}"
        graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), place))
        added += [_renamed(node, names, f", block {number}", {past: place}) for node in body]
        entries.append(
            _renamed(kept, names | {kept.output[0]: f"{kept.output[0]}, block {number}"}, f", block {number}")
        )
        graph.initializer.extend(_weights(network, weights, number))
    _put_in(graph, second, added, entries, new_past)
    del graph.value_info[:]  # of the traced blocks alone
    for value in (*graph.input, *graph.output):
        if value.name in (past, new_past):
            value.type.tensor_type.shape.dim[0].dim_value = n_blocks


def _end_of_block(graph: onnx.GraphProto, number: int) -> int:
    """Return the place of the node whose output is a traced block's."""
    product = next(node.output[0] for node in graph.node if f"{LAYER}{number}.{LAST_MAP}" in node.input)
    (place,) = (place for place, node in enumerate(graph.node) if product in node.input)
    return place


def _producer(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(node for node in graph.node if name in node.output)


def _renamed(
    node: onnx.NodeProto, names: Mapping[str, str], suffix: str, places: Mapping[str, str] | None = None
) -> onnx.NodeProto:
    """Return a node of another block; where it reads what `places` names, its second input is the block's number."""
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.name = f"{node.name}{suffix}"
    for place, name in enumerate(node.input):
        other.input[place] = names.get(name, name)
    for place, name in enumerate(node.output):
        other.output[place] = names[name]
    if places and node.input[0] in places:
        other.input[1] = places[node.input[0]]
    return other


def _weights(network: LanguageModel, names: set[str], number: int) -> list[onnx.TensorProto]:
    """Return the weights of a block, maps transposed as in `_Product`."""
    found, given = [], network.given()
    for name in sorted(names):
        own = name.replace(f"{LAYER}{TRACED - 1}.", f"{LAYER}{number}.")
        array = given[own.removeprefix("network.")].numpy()
        found.append(numpy_helper.from_array(np.ascontiguousarray(array.T), own))
    return found


def _put_in(
    graph: onnx.GraphProto, second: int, added: list[onnx.NodeProto], entries: list[onnx.NodeProto], new_past: str
) -> None:
    """Put the nodes of further blocks behind the traced ones, and have what follows read the last block."""
    nodes, traced_end = list(graph.node), graph.node[second].output[0]
    for node in nodes[second + 1 :]:
        for place, name in enumerate(node.input):
            if name == traced_end:
                node.input[place] = added[-1].output[0]
        if new_past in node.output:
            node.input.extend(entry.output[0] for entry in entries)
    nodes[second + 1 : second + 1] = [*added, *entries]
    del graph.node[:]
    graph.node.extend(nodes)
