"""A trained model as one self-contained ONNX file, dynamic in rows and length; its check against torch."""

import copy
import logging
import math
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.features.batches import collate
from model.features.fitted import Features
from model.features.fitting import Table
from model.features.kinds import kind_classes
from model.features.kinds.base import Input, missing_cells
from model.heads.item_lists import difference
from model.network.blend import TREE_INPUTS, TREE_LOGITS, TREES
from model.network.companion import Trees
from model.network.encoder import HIDDEN, Attention, Block
from model.network.language.model import LanguageModel
from model.network.network import Network
from model.network.store import load_model
from model.scoring.engines import ITEMS, SCORES, SIMPLEST
from model.scoring.generation import IDS, PAST, PLACES, PREFIX_OF, SOURCE, STEP_OUTPUTS
from model.scoring.scorer import Scorer, TorchScorer
from model.scoring.trees import insert
from model.scoring.unrolled import add_blocks, first_blocks

NARROW = 128
"""Tokens this wide or less leave a product of their own width too little to do."""
CARRIED = ("network.json", "features.json", "tokenizer.json")


class _Scores(nn.Module):
    """A network whose forward gives scores: what an exporter can trace."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        head = None if network.target is None else network.target.head
        self.answers_lists = head is not None and (head.answers_lists or head.answers_spans)
        self.decoder = network.decoder

    @property
    def outputs(self) -> list[str]:
        """Return the names of what `forward` returns, without the trees."""
        if self.decoder is not None:
            return list(STEP_OUTPUTS)
        return [ITEMS, SCORES] if self.answers_lists else [SCORES]

    def forward(self, batch: dict[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
        if self.decoder is not None:
            return self.decoder.step(self.network, batch)
        if self.answers_lists:
            return self.network.lists(batch)
        scores = self.network.scores(batch)
        return scores if TREE_LOGITS not in batch else (scores, self.network.tree_inputs(batch))


class _PlainAttention(nn.Module):
    """`model.network.encoder.Attention` spelt out: what engines recognise and fuse.

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
        assert n_queries is None
        query, key, value = self._together(tokens) if tokens.shape[-1] <= NARROW else self._apart(tokens)
        weights = query @ key
        if mask is not None:
            weights = weights + torch.where(mask, 0.0, HIDDEN)
        return self.output((weights.softmax(-1) @ value).transpose(1, 2).flatten(2))

    def _apart(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of every head, by three products.

        Shapes: [b, n, d] -> [b, h, n, e], [b, h, e, n], [b, h, n, e].
        """
        query, key, value = (
            part(tokens).unflatten(-1, (self.n_heads, self.d_head)) for part in (self.query, self.key, self.value)
        )
        return query.transpose(1, 2), key.permute(0, 2, 3, 1), value.transpose(1, 2)

    def _together(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same by one product, moved by one transposition."""
        parts = (self.query, self.key, self.value)
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        each = nn.functional.linear(tokens, weight, bias).unflatten(-1, (3, self.n_heads, self.d_head))
        query, key, value = each.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key.transpose(-1, -2), value


class _FirstTokenAttention(nn.Module):
    """The same where the first token alone asks: it reads the tokens themselves, not keys and values of each.

    A key's product with the one query is the token's with that query taken through the key's map, and a weighted mean
    of values is the value of the mean. So these maps are taken once a row, folded into those beside them; the keys'
    bias moves all weights alike and drops out.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        heads = (attention.n_heads, attention.d_head)
        query, key, value, output = (
            copy.deepcopy(part).double() for part in (attention.query, attention.key, attention.value, attention.output)
        )
        # Letters: h heads, e width of one, d and f widths of a token.
        keys = key.weight.unflatten(0, heads) / math.sqrt(attention.d_head)
        asked = torch.einsum("hed,hef->hdf", keys, query.weight.unflatten(0, heads)).flatten(0, 1)
        asked_bias = torch.einsum("hed,he->hd", keys, query.bias.unflatten(0, heads)).flatten()
        answered = torch.einsum("fhe,hed->fhd", output.weight.unflatten(1, heads), value.weight.unflatten(0, heads))
        self.n_heads = attention.n_heads
        self.asked = _linear(asked, asked_bias)
        self.answered = _linear(answered.flatten(1), output.weight @ value.bias + output.bias)

    def forward(self, tokens: Tensor, mask: Tensor | None, n_queries: int | None = None) -> Tensor:
        """Shapes: [b, n, d] -> [b, 1, d]."""
        assert n_queries == 1
        weights = self.asked(tokens[:, 0]).unflatten(-1, (self.n_heads, -1)) @ tokens.transpose(1, 2)
        if mask is not None:
            weights = weights + torch.where(mask[:, 0], 0.0, HIDDEN)
        return self.answered((weights.softmax(-1) @ tokens).flatten(1))[:, None]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    n_out, n_in = weight.shape
    linear = nn.Linear(n_in, n_out)
    linear.weight.data, linear.bias.data = weight.detach().float(), bias.detach().float()
    return linear


def export_onnx(trained: Path, folder: Path) -> None:
    """Write `network.onnx` and the JSON files beside it, all that `Scorer` needs.

    Inputs are those of `model.features.batches.collate`; the output is `scores`.
    """
    network, features = load_model(trained)
    whole = None
    if isinstance(network, LanguageModel):
        network.merge()
        whole, network = network, first_blocks(network)
    for block in network.encoder.layer if network.decoder is None else ():
        assert isinstance(block, Block)
        only_first = (
            network.head is not None and network.settings.pooling == "cls" and block is network.encoder.layer[-1]
        )
        block.add_module("attention", (_FirstTokenAttention if only_first else _PlainAttention)(block.attention))
    folder.mkdir(parents=True, exist_ok=True)
    trees = _scoring_trees(network)
    example = _example(features)
    if trees is not None:
        example[TREE_LOGITS] = torch.zeros(2, len(trees.base))
    if network.decoder is not None:
        example |= _example_step(network)
    model = _traced(network, example)
    if whole is not None:
        add_blocks(model, whole, PAST, STEP_OUTPUTS[1])
    if trees is not None:
        insert(model, trees)
    _strip(model)
    content = model.SerializeToString()
    onnx.checker.check_model(content)
    (folder / "network.onnx").write_bytes(content)
    for name in CARRIED:
        if (trained / name).exists():
            shutil.copyfile(trained / name, folder / name)


def _scoring_trees(network: Network) -> Trees | None:
    """Return the trees, where they have a weight."""
    companion = network.companion
    return None if companion is None or TREES not in companion.shape.parts else companion.trees


def parity(trained: Path, exported: Path, tables: Iterable[Table]) -> float:
    """Largest absolute difference between the scores of torch and of ONNX Runtime, over tables that are read twice.

    NaN where a score is.
    """
    scorers = TorchScorer(trained), Scorer(exported, engine=SIMPLEST)
    target = scorers[0].network.target
    assert target is not None
    compared = target.head.compared_scores
    pairs = zip(*(scorer.score_stream(tables) for scorer in scorers), strict=True)
    return float(np.max([difference(compared(one), compared(other)) for one, other in pairs], initial=0.0))


def _example(features: Features) -> dict[str, Tensor]:
    """Return two rows with everything missing, one of them in two windows if rows have windows: only shapes matter."""
    table = {name: missing_cells(kind, 2) for name, kind in features.kinds.items()}
    batch = collate(features.encode(table), np.arange(2), features.sizes.pad_id)
    example = {name: torch.from_numpy(array) for name, array in batch.items()}
    inputs = _inputs()
    # A length of one would be taken for a constant, and one beyond the most is none.
    most = {name: features.sizes.max_tokens if each.has_most else None for name, each in inputs.items()}
    example = {
        name: torch.cat([column] * 4, dim=1)[:, : most[name]] if name in inputs and inputs[name].ragged else column
        for name, column in example.items()
    }
    if "windows" in example:
        # A number of windows that is the number of rows would be taken for it.
        owners = torch.tensor([0, 0, 1])
        example = {
            name: column if name in inputs and inputs[name].of == "rows" else column[owners]
            for name, column in example.items()
        }
        example["windows"] = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return example


def _example_step(network: Network) -> dict[str, Tensor]:
    """Return the step of five texts, with three tokens kept, three of the prefix and two subwords that are new."""
    n_rows = 5
    return {
        PREFIX_OF: torch.zeros(n_rows, 3, dtype=torch.int64),
        IDS: torch.zeros(n_rows, 2, dtype=torch.int64),
        PLACES: torch.zeros(n_rows, 2, dtype=torch.int64),
        PAST: torch.zeros(network.past_shape(n_rows, 3)),
        SOURCE: torch.zeros(n_rows, 3, dtype=torch.int64),
    }


def _step_dimensions() -> dict[str, dict[int, torch.export.Dim]]:
    """Return which dimensions of a step's inputs differ; one text may go on after several rows, or after none."""
    texts, kept, new = (torch.export.Dim(name) for name in ("texts", "n_kept", "n_new"))
    return {
        PREFIX_OF: {0: texts, 1: torch.export.Dim("n_prefix")},
        IDS: {0: texts, 1: new},
        PLACES: {0: texts, 1: new},
        PAST: {2: texts, 4: kept},
        SOURCE: {0: texts, 1: kept},
    }


def _inputs() -> dict[str, Input]:
    """Return the inputs of all kinds by name."""
    return {each.name: each for kind in kind_classes() for each in kind.inputs()}


def _dimensions(example: dict[str, Tensor], max_tokens: int) -> dict[str, dict[int, torch.export.Dim]]:
    """Return which dimensions of each input differ from batch to batch."""
    inputs, rows = _inputs(), torch.export.Dim("rows")
    windows = torch.export.Dim("n_windows") if "windows" in example else rows
    shapes = {"windows": {0: rows, 1: windows}, TREE_LOGITS: {0: rows}, **_step_dimensions()}
    ragged: dict[str, torch.export.Dim] = {}
    for name, each in inputs.items():
        shapes[name] = {0: rows if each.of == "rows" else windows}
        if each.ragged:
            most = max_tokens if each.has_most else None
            shapes[name][1] = ragged.setdefault(each.ragged, torch.export.Dim(each.ragged, max=most))
    return {name: shapes[name] for name in example}


def _traced(network: Network, example: dict[str, Tensor]) -> onnx.ModelProto:
    shapes = _dimensions(example, network.sizes.max_tokens)
    # With gradients the same file takes an eighth longer; with torch's cache of shapes, which holds formulas of unknown
    # sizes here and looks them up more slowly than they are worked out, a quarter.
    quick = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with warnings.catch_warnings(), torch.no_grad(), quick:
        # The exporter warns of torchvision's absence and of its own plans; neither concerns a user.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        scores = _Scores(network).eval()
        program = torch.onnx.export(
            scores,
            kwargs={"batch": example},
            dynamo=True,
            dynamic_shapes={"batch": shapes},
            input_names=list(example),
            output_names=[*scores.outputs, TREE_INPUTS] if TREE_LOGITS in example else scores.outputs,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(model: onnx.ModelProto) -> None:
    """Remove what no node reads, and what the exporter notes about the code it traced.

    Paths and lines in that differ between machines.
    """
    read = {name for node in model.graph.node for name in node.input} | {each.name for each in model.graph.output}
    for unread in [each for each in model.graph.initializer if each.name not in read]:
        model.graph.initializer.remove(unread)
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
