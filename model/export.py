"""A trained model as one self-contained ONNX file, dynamic in rows and length; its check against torch."""

import copy
import logging
import math
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.batches import collate
from model.encoder import Attention, Block
from model.engines import SIMPLEST
from model.features import Features, Table
from model.network import Network
from model.scoring import Scorer, TorchScorer
from model.store import load_model

HIDDEN = -1e4
"""Added to the attention weights of what is not read: their exponential is 0, and it is finite in every precision."""
RAGGED = ("text", "bag", "bag_weights")
CARRIED = ("network.json", "features.json", "tokenizer.json")


class _Scores(nn.Module):
    """A network whose forward gives scores: what an exporter can trace."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        categories: Tensor | None = None,
        numbers: Tensor | None = None,
        times: Tensor | None = None,
        text: Tensor | None = None,
        bag: Tensor | None = None,
        bag_weights: Tensor | None = None,
    ) -> Tensor:
        tokens = {"categories": categories, "numbers": numbers, "times": times, "text": text}
        inputs = {**tokens, "bag": bag, "bag_weights": bag_weights}
        return self.network.scores({name: given for name, given in inputs.items() if given is not None})


class _PlainAttention(nn.Module):
    """`model.encoder.Attention` spelt out: what engines recognise and fuse.

    Torch's own kernel is exported with a guard against rows that are hidden whole, which engines do not see
    through; no row here is one, since [CLS] is always read.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.n_heads, self.d_head = attention.n_heads, attention.d_head
        self.query, self.key, self.value = copy.deepcopy(attention.query), attention.key, attention.value
        self.output = attention.output
        for part in self.query.parameters():
            part.data /= math.sqrt(self.d_head)

    def forward(self, tokens: Tensor, mask: Tensor | None, n_queries: int | None = None) -> Tensor:
        query, key, value = (
            self._heads(self.query(tokens[:, :n_queries])),
            self._heads(self.key(tokens)),
            self.value(tokens),
        )
        weights = query.transpose(1, 2) @ key.permute(0, 2, 3, 1)
        if mask is not None:
            weights = weights + torch.where(mask, 0.0, HIDDEN)
        attended = weights.softmax(-1) @ self._heads(value).transpose(1, 2)
        return self.output(attended.transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.n_heads, self.d_head))


def export_onnx(trained: Path, folder: Path) -> None:
    """Write `network.onnx` and the JSON files beside it, all that `Scorer` needs.

    Inputs are those of `model.batches.collate`; the output is `scores`.
    """
    network, features = load_model(trained)
    for block in network.encoder.layer:
        assert isinstance(block, Block)
        block.add_module("attention", _PlainAttention(block.attention))
    folder.mkdir(parents=True, exist_ok=True)
    model = _traced(network, _example(features))
    _strip(model)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "network.onnx")
    for name in CARRIED:
        if (trained / name).exists():
            shutil.copyfile(trained / name, folder / name)


def parity(trained: Path, exported: Path, table: Table) -> float:
    """Largest absolute difference between the scores of torch and of ONNX Runtime."""
    difference = TorchScorer(trained).score(table) - Scorer(exported, engine=SIMPLEST).score(table)
    return float(np.abs(difference).max(initial=0.0))


def _example(features: Features) -> dict[str, Tensor]:
    """Two rows with everything missing: only their shapes matter."""
    empty = {"number": np.full(2, np.nan), "time": np.full(2, "NaT", "datetime64[s]")}
    nothing = np.full(2, None, object)
    encoded = features.encode({name: empty.get(kind, nothing) for name, kind in features.kinds.items()})
    batch = collate(encoded, np.arange(2), features.sizes.pad_id)
    example = {name: torch.from_numpy(array) for name, array in batch.items()}
    if "text" in example:
        # A length of one would be taken for a constant.
        example |= {name: example[name].repeat(1, 4) for name in RAGGED if name in example}
    return example


def _traced(network: Network, example: dict[str, Tensor]) -> onnx.ModelProto:
    rows = torch.export.Dim("rows")
    shapes: dict[str, dict] = {name: {0: rows} for name in example}
    if "text" in example:
        shapes["text"] = {0: rows, 1: torch.export.Dim("subwords", max=network.sizes.max_tokens)}
    if "bag" in example:
        shapes["bag"] = shapes["bag_weights"] = {0: rows, 1: torch.export.Dim("bag_subwords")}
    with warnings.catch_warnings():
        # The exporter warns of torchvision's absence and of its own plans; neither concerns a user.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Scores(network).eval(),
            kwargs=example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(example),
            output_names=["scores"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about the code it traced: paths and lines differ between machines."""
    graphs = [model.graph, *model.functions]
    for part in [
        model,
        *graphs,
        *(node for graph in graphs for node in graph.node),
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
