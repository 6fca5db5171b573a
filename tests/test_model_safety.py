"""Oracle: files that the ONNX and safetensors libraries themselves write, then made hostile by hand."""

import json
import struct

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from model.network.safety import check_onnx, load_weights


def graph(domain="", inner=""):
    """Adds a weight to its input inside a branch, whose operator is of the domain `inner`."""
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["z"], domain=inner)],
        "branch",
        [],
        [helper.make_tensor_value_info("z", 1, [2])],
        [weight],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch, domain=domain)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    return helper.make_model(
        helper.make_graph([node], "main", inputs, [out]),
        opset_imports=[helper.make_opsetid(name, 1) for name in {"", domain, inner}],
    )


def outside(location, in_constant=False):
    """A model whose weight lies at `location`."""
    model = graph()
    branch = model.graph.node[0].attribute[0].g
    tensor = branch.initializer[0]
    if in_constant:
        branch.node.append(helper.make_node("Constant", [], ["k"], value=tensor))
        tensor = branch.node[-1].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def written(folder, model):
    file = folder / "model" / "network.onnx"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(model.SerializeToString())
    return file


def test_what_onnx_and_its_runtime_know_passes(tmp_path):
    check_onnx(written(tmp_path, graph()))
    check_onnx(written(tmp_path, graph(inner="com.microsoft")))
    (tmp_path / "model" / "weights.bin").write_bytes(bytes(8))
    check_onnx(written(tmp_path, outside("weights.bin")))


@pytest.mark.parametrize("place", [{"domain": "evil.ops"}, {"inner": "evil.ops"}])
def test_operators_of_others_are_refused_wherever_they_stand(tmp_path, place):
    with pytest.raises(ValueError, match=r"operators of ONNX and ONNX Runtime only, and uses those of evil.ops"):
        check_onnx(written(tmp_path, graph(**place)))


@pytest.mark.parametrize("in_constant", [False, True])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link", "folder/../../secret", "absent", ""])
def test_weights_outside_the_folder_are_refused(tmp_path, location, in_constant):
    (tmp_path / "secret").write_bytes(bytes(8))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="must keep its weights in its own folder"):
        check_onnx(written(tmp_path, outside(location, in_constant)))


@pytest.mark.parametrize("content", [b"", b"no protobuf", bytes(99)])
def test_file_that_is_no_onnx_is_told(tmp_path, content):
    (tmp_path / "network.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"network.onnx must be an ONNX file, and "):
        check_onnx(tmp_path / "network.onnx")


def tensors(header, data=bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


WEIGHT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_what_safetensors_writes_is_read(tmp_path):
    file = tmp_path / "w.safetensors"
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.int8), "c": np.ones(0)}
    save_file(arrays, file, {"k": "v"})
    read = load_weights(file)
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    file.write_bytes(tensors({"a": WEIGHT}))
    assert load_weights(file)["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 10**6 + 1) + b" " * (10**6 + 9),
        tensors(b"[" * 99999),
        tensors([WEIGHT]),
        tensors({"a": {**WEIGHT, "shape": [2**61]}}),
        tensors({"a": {**WEIGHT, "shape": [-2, -1]}}),
        tensors({"a": {**WEIGHT, "dtype": "PICKLE"}}),
        tensors({"a": {**WEIGHT, "data_offsets": [0, 2**40]}}),
        tensors({"a": WEIGHT, "b": WEIGHT}),
        tensors({"a": WEIGHT}, bytes(7)),
        tensors({"a": WEIGHT}, bytes(9)),
    ],
)
def test_safetensors_that_claim_what_is_not_there_are_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"w.safetensors must be a safetensors file, and is not: .+; use another file"):
        load_weights(tmp_path / "w.safetensors")
