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

from model.batches import Batch

PRODUCTS = ["MatMul", "Gemm"]


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> Batch | None:
        return next(self.batches, None)


def quantise(network: Path, into: Path, batches: Iterable[Batch]) -> None:
    """Write the ONNX file `network` with its products by a constant matrix in int8, scaled to what `batches` show.

    Only what enters a product is rounded: what leaves it stays as it is, for biases, norms and attention.
    """
    log = logging.getLogger()
    was, log.level = log.level, logging.ERROR  # it advises on steps that this network does not need
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
        log.level = was


def halve(network: Path, into: Path) -> None:
    """Write the ONNX file `network` with weights and sums in fp16; what goes in and comes out stays fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(convert_float_to_float16(onnx.load(network), keep_io_types=True))
    model.topological_sort()
    onnx.checker.check_model(model.model)
    onnx.save(model.model, into)


def _products(model: onnx.ModelProto) -> list[str]:
    """Names of the products by a constant matrix; a stack of them (a number column each) has no int8 kernel."""
    matrices = {weight.name for weight in model.graph.initializer if len(weight.dims) == 2}
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] in matrices]
