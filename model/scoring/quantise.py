"""An exported network in fewer bits: static int8 for a CPU, fp16 for a GPU.

In int8 matrix products are of whole numbers, their scales fixed by calibration rows. The scales are in the file, one
per weight column and one per activation, so that a row's scores do not depend on the rows beside it; dynamic
quantisation takes the activations' scales from each batch and would break that.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from model.features.batches import Batch

PRODUCTS = ["MatMul", "Gemm"]
WIDE_RANGE = ["Sub", "Div", "Mul", "Sin", "Cos", "Clip", "Pow", "Sqrt", "ReduceSum"]
"""Operations outside of the blocks (numbers, times, bags, means), whose results may leave the range of fp16."""


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> Batch | None:
        return next(self.batches, None)


def quantise(network: Path, into: Path, batches: Iterable[Batch]) -> None:
    """Write the ONNX file `network` with its products by a constant matrix in int8, scaled to the range of `batches`.

    Only the inputs of a product are rounded; its output keeps its precision, for biases, norms and attention.
    """
    log = logging.getLogger()
    level, log.level = log.level, logging.ERROR  # it advises on steps that this network does not need
    try:
        quantize_static(
            network,
            into,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=PRODUCTS,
            nodes_to_quantize=_products(onnx.load(network)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": PRODUCTS},
        )
    finally:
        log.level = level


def convert_to_fp16(network: Path, into: Path) -> None:
    """Write the ONNX file `network` with its blocks in fp16; WIDE_RANGE, inputs and outputs stay fp32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    kept = [*DEFAULT_OP_BLOCK_LIST, *WIDE_RANGE]
    model = OnnxModel(convert_float_to_float16(onnx.load(network), keep_io_types=True, op_block_list=kept))
    remove_redundant_casts(model.model.graph)
    model.topological_sort()
    model.prune_graph()
    onnx.checker.check_model(model.model)
    onnx.save(model.model, into)


def remove_redundant_casts(graph: onnx.GraphProto) -> None:
    """Connect fp32 nodes directly: the converter takes each value between them through fp16."""
    by_output = {node.output[0]: node for node in graph.node}  # it also casts once for each reader, under one name
    casts = (node for node in by_output.values() if node.name.endswith("_cast_to_fp16_node"))
    before_cast = {cast.output[0]: cast.input[0] for cast in casts}
    for node in by_output.values():
        for at, name in enumerate(node.input):
            cast = by_output.get(name)
            if cast is not None and cast.name.endswith("_cast_to_fp32_node"):
                node.input[at] = before_cast.get(cast.input[0], name)
    del graph.node[:]
    graph.node.extend(by_output.values())


def _products(model: onnx.ModelProto) -> list[str]:
    """Return the names of products by one constant matrix; a stack of these, for number columns, has no int8 kernel."""
    matrices = {weight.name for weight in model.graph.initializer if len(weight.dims) == 2}
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in matrices]
