"""The engines that run an exported network: ONNX Runtime, or OpenVINO if it is installed; both read the same file.

`engine.json` beside the network says which of them scores with it, and how precisely: chosen when the model is
exported (see `model.scoring.choice`), kept from then on. A batch is computed by one thread, and as many batches at
once as there are cores, so that the number of cores changes no bit of a score. Imports no torch.
"""

import ctypes
import importlib.metadata
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime

from model.compute import processor
from model.features.batches import Batch
from model.heads.item_lists import joined
from model.network.blend import TREE_LOGITS
from model.network.safety import check_onnx
from model.scoring.generation import STEP_OUTPUTS
from model.scoring.trees import take_out
from model.target import read_description

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
FILE = "engine.json"
BATCH_NUMBERS, MOST_TOKENS = 1024 * 384, 4096
"""Limits of a batch on a CPU: numbers that its cache holds beside the weights; tokens, of which more gain nothing."""
KEPT_KERNELS = 100
"""Kernels that each thread of OpenVINO keeps, one for a shape of batch. Its default is thousands: for MiniLM 2.6 MB a
shape, and 1.4 GiB in a night of a million sentences, without being faster. With none kept it computes other bits."""
NETWORK, INT8_NETWORK, FP16_NETWORK = "network.onnx", "network.int8.onnx", "network.fp16.onnx"
ITEMS, SCORES = "items", "scores"
"""Outputs of a network; the items are whole numbers, which a rounded precision must not touch."""
NEEDED = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")}
"""Features, as Linux names them, of which a processor needs one: else int8 products overflow, bf16 is emulated."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine and its precision."""

    name: str
    """onnxruntime or openvino."""
    precision: str
    """fp32, bf16 (matrix products of rounded fp32 weights), or int8 or fp16 (a file of its own each)."""

    def __str__(self) -> str:
        return f"{self.name}-{self.precision}"

    @classmethod
    def parse(cls, text: str) -> "Engine":
        """Return the engine that `str` writes as `text`."""
        name, _, precision = text.partition("-")
        return cls(name=name, precision=precision)

    @property
    def network(self) -> str:
        """Return the name of the file that it reads."""
        return {"int8": INT8_NETWORK, "fp16": FP16_NETWORK}.get(self.precision, NETWORK)

    def save(self, folder: Path) -> None:
        """Write it beside the network."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Engine":
        """Return the engine chosen for the network in `folder`; ONNX Runtime in fp32 if none was."""
        file = folder / FILE
        return cls(**json.loads(file.read_text("utf-8"))) if file.exists() else SIMPLEST


SIMPLEST = Engine(name=ONNXRUNTIME, precision="fp32")


class Runner(Protocol):
    """A network that is loaded and ready."""

    n_parallel: int
    """Batches that may run at once."""
    batch_tokens: int
    """Tokens of a batch, for speed."""
    described: dict[str, str]
    """Engine, version, provider and precision, for the manifest."""

    def run(self, batch: Batch) -> np.ndarray:
        """Return the scores of one padded batch; may be called from `n_parallel` threads at once."""
        ...


class OnnxRuntime:
    """ONNX Runtime, on a GPU when there is one."""

    def __init__(self, engine: Engine, folder: Path, n_threads: int = 0) -> None:
        """Load the network; `n_threads` 0 takes all cores."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers: list[Any] = ["CPUExecutionProvider"]
        if has_cuda():
            onnxruntime.preload_dlls()
            # Its own default rounds the inputs of fp32 products to 10 bits.
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": 0}))
        self.session = onnxruntime.InferenceSession(folder / engine.network, options, providers=providers)
        self.inputs = {each.name for each in self.session.get_inputs()}
        self.outputs = _outputs({each.name for each in self.session.get_outputs()})
        provider = self.session.get_providers()[0]  # the CPU, where a GPU's libraries are not all there
        on_cpu = provider == "CPUExecutionProvider"
        self.n_parallel = (n_threads or processor.n_cores()) if on_cpu else 1
        self.batch_tokens = _batch_tokens(folder) if on_cpu else 65_536
        self.described = {
            "engine": engine.name,
            "version": onnxruntime.__version__,
            "provider": provider,
            "precision": engine.precision,
        }

    def run(self, batch: Batch) -> np.ndarray:
        """Return the scores of one padded batch."""
        return _scores(self.session.run(self.outputs, _only(batch, self.inputs)))

    def step(self, inputs: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a step of texts; see `model.scoring.generation.Step`."""
        shares, past, source = self.session.run(list(STEP_OUTPUTS), _only(inputs, self.inputs))
        return shares, past, source


class OpenVino:
    """OpenVINO on the CPU: one stream for each batch that runs at once."""

    def __init__(self, engine: Engine, folder: Path, n_threads: int = 0) -> None:
        """Load the network; `n_threads` 0 takes all cores."""
        import openvino

        self.n_parallel = n_threads or processor.n_cores()
        self.batch_tokens = _batch_tokens(folder)
        core = openvino.Core()
        # OpenVINO has no operator for trees; of what ONNX Runtime says for them it does the rest.
        parts = take_out(onnx.load(folder / engine.network))
        self.trees = None if parts is None else _one_thread(parts[0].SerializeToString())
        self.tree_inputs = set() if self.trees is None else {each.name for each in self.trees.get_inputs()}
        network = folder / engine.network if parts is None else core.read_model(parts[1].SerializeToString(), b"")
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32" if engine.precision == "fp32" else "bf16",
                "NUM_STREAMS": self.n_parallel,
                "INFERENCE_NUM_THREADS": self.n_parallel,
                "CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS,
            },
        )
        self.inputs = {name for each in compiled.inputs for name in each.names}
        self.outputs = _outputs({name for each in compiled.outputs for name in each.names})
        self.requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.n_parallel):
            self.requests.put(compiled.create_infer_request())
        self.described = {
            "engine": engine.name,
            "version": importlib.metadata.version("openvino"),
            "provider": "CPU",
            "precision": engine.precision,
        }

    def run(self, batch: Batch) -> np.ndarray:
        """Return the scores of one padded batch."""
        if self.trees is not None:
            sums = self.trees.run([TREE_LOGITS], _only(batch, self.tree_inputs))[0]
            batch = {**batch, TREE_LOGITS: sums}
        request = self.requests.get()
        try:
            request.infer(_only(batch, self.inputs), share_inputs=True)
            return _scores([request.get_tensor(name).data.copy() for name in self.outputs])
        finally:
            self.requests.put(request)


def _only(batch: Batch, names: set[str]) -> Batch:
    """Return the inputs that a network reads: of a part that has no weight in it, they are not."""
    return {name: array for name, array in batch.items() if name in names}


def _outputs(names: set[str]) -> list[str]:
    """Return the outputs that are read: the scores, of lists with the items that these are of."""
    return [ITEMS, SCORES] if ITEMS in names else [SCORES]


def _scores(outputs: list[np.ndarray]) -> np.ndarray:
    return outputs[0] if len(outputs) == 1 else joined(*outputs)


def _one_thread(network: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])


def load(engine: Engine, folder: Path, n_threads: int = 0) -> Runner:
    """Return the network of `folder`, ready to run.

    Raises: ValueError if this machine lacks the library, or its processor a feature that the precision needs, and for a
    file that names other files or code.
    """
    if lacks := missing_requirement(engine):
        raise ValueError(
            f"{folder} must be scored by {engine}, chosen when it was exported, and {lacks} here; score it on a "
            f"machine like that one, or set model.engine to {SIMPLEST} and export again"
        )
    for file in sorted(folder.glob("*.onnx")):
        check_onnx(file)
    return (OpenVino if engine.name == OPENVINO else OnnxRuntime)(engine, folder, n_threads)


def _batch_tokens(folder: Path) -> int:
    """Return the tokens of a batch on a CPU: the narrower the network, the more."""
    return min(MOST_TOKENS, BATCH_NUMBERS // int(read_description(folder)["settings"]["d_model"]))


def missing_requirement(engine: Engine) -> str | None:
    """Return what this machine lacks for the engine, in words; None if it can run it."""
    if engine.name == OPENVINO and importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install openvino)"
    if engine.precision == "fp16" and not has_cuda():
        return "ONNX Runtime has no GPU"
    needed = NEEDED.get(engine.precision, ())
    if needed and not processor.features() & set(needed):
        return f"the processor has none of {', '.join(needed)}"
    return None


def has_cuda() -> bool:
    """Return whether ONNX Runtime computes on a GPU of this machine."""
    return n_cuda_devices() > 0 and "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def n_cuda_devices() -> int:
    """Return the number of GPUs that the CUDA driver sees; 0 without a driver.

    ONNX Runtime's list of providers says what it was built with, not what the machine has.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
