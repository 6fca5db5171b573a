"""The trees of a companion as ONNX's own operator for them, put into an exported network and taken out again.

The network is traced with what the trees say as an input and what they read as an output; between the two lies one
node, `TreeEnsembleRegressor`. An engine that does not know it runs the rest, beside ONNX Runtime for the trees.
"""

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from model.network.blend import TREE_INPUTS, TREE_LOGITS

if TYPE_CHECKING:
    from model.network.companion import Trees

OPERATOR, DOMAIN, VERSION = "TreeEnsembleRegressor", "ai.onnx.ml", 3


def insert(model: onnx.ModelProto, trees: "Trees") -> None:
    """Put the trees between the output TREE_INPUTS of the model and its input TREE_LOGITS, which both go."""
    graph = model.graph
    (sums,) = (each for each in graph.input if each.name == TREE_LOGITS)
    (read,) = (each for each in graph.output if each.name == TREE_INPUTS)
    graph.input.remove(sums)
    graph.output.remove(read)
    # Kept for those who take the trees out again.
    graph.value_info.extend([sums, read])
    node = helper.make_node(OPERATOR, [TREE_INPUTS], [TREE_LOGITS], domain=DOMAIN, name="trees", **_attributes(trees))
    nodes = list(graph.node)
    before = _needed_for(nodes, TREE_INPUTS)
    del graph.node[:]
    # The exporter's order may have readers of the trees before the last of what they read.
    graph.node.extend([each for at, each in enumerate(nodes) if at in before])
    graph.node.append(node)
    graph.node.extend([each for at, each in enumerate(nodes) if at not in before])
    if all(each.domain != DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def take_out(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """Return a model from the inputs to TREE_LOGITS, and one of all else, which reads them; None without trees."""
    if all(node.op_type != OPERATOR for node in model.graph.node):
        return None
    extractor = onnx.utils.Extractor(model)
    inputs = [each.name for each in model.graph.input]
    alone = extractor.extract_model(_read_by(model, TREE_LOGITS), [TREE_LOGITS])
    return alone, extractor.extract_model([*inputs, TREE_LOGITS], [each.name for each in model.graph.output])


def _read_by(model: onnx.ModelProto, output: str) -> list[str]:
    """Return the inputs of the model that an output needs."""
    nodes = list(model.graph.node)
    names = {name for at in _needed_for(nodes, output) for name in nodes[at].input}
    return [each.name for each in model.graph.input if each.name in names]


def _needed_for(nodes: list[onnx.NodeProto], output: str) -> set[int]:
    """Return the numbers of the nodes that an output needs."""
    made_by = {name: at for at, node in enumerate(nodes) for name in node.output}
    found: set[int] = set()
    open_names = [output]
    while open_names:
        at = made_by.get(open_names.pop())
        if at is not None and at not in found:
            found.add(at)
            open_names.extend(nodes[at].input)
    return found


def _attributes(trees: "Trees") -> dict:
    arrays = {name: tensor.numpy() for name, tensor in trees.named_buffers()}
    roots, n_nodes = arrays["roots"], len(arrays["value"])
    tree = np.searchsorted(roots, np.arange(n_nodes), "right") - 1
    own = np.arange(n_nodes) - roots[tree]
    is_leaf = arrays["left"] == np.arange(n_nodes)
    leaves = np.flatnonzero(is_leaf)
    return {
        "n_targets": len(arrays["base"]),
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": own.tolist(),
        "nodes_featureids": arrays["feature"].tolist(),
        "nodes_values": arrays["threshold"].tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(is_leaf, 0, arrays["left"] - roots[tree]).tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, arrays["right"] - roots[tree]).tolist(),
        "nodes_missing_value_tracks_true": arrays["missing_left"].astype(int).tolist(),
        "target_treeids": tree[leaves].tolist(),
        "target_nodeids": own[leaves].tolist(),
        "target_ids": arrays["output"][tree[leaves]].tolist(),
        "target_weights": arrays["value"][leaves].tolist(),
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
