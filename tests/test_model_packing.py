"""Oracle: padded rows, read as they are written; and torch's own count of the graphs that it has compiled.

What a GPU runs while it trains, on the CPU: the same calls, compiled in the same way, up to the attention kernel. In
its place stands attention row by row, registered with torch as that operator's kernel for a CPU.
"""

import itertools
import math

import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import varlen

import model.network.encoder
from model.compute.device import eager
from model.network.encoder import Encoder, _by_kernel
from model.settings import NetworkSettings

SHAPES = [(8, 20), (5, 13), (12, 20), (3, 7), (2, 9), (1, 5), (1, 1), (6, 1)]
"""Rows, and tokens of the longest; a training's last batch may be one row."""


def slices(offsets, longest):
    assert offsets.dtype == torch.int32
    assert offsets.diff().max() <= longest
    return [slice(*ends) for ends in itertools.pairwise(offsets.tolist())]


def heads(part):
    return part.transpose(0, 1)


def shares_of(query, key):
    return (heads(query) @ heads(key).mT / math.sqrt(query.shape[-1])).softmax(-1)


def forward(query, key, value, offsets_q, offsets_k, longest_q, longest_k, *_):
    out = torch.empty_like(query)
    for one, its in zip(slices(offsets_q, longest_q), slices(offsets_k, longest_k), strict=True):
        out[one] = heads(shares_of(query[one], key[its]) @ heads(value[its]))
    return out, torch.empty(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


def backward(gradient, query, key, value, _out, _logs, offsets_q, offsets_k, longest_q, longest_k, *_):
    found = tuple(torch.empty_like(part) for part in (query, key, value))
    for one, its in zip(slices(offsets_q, longest_q), slices(offsets_k, longest_k), strict=True):
        shares, wanted = shares_of(query[one], key[its]), heads(gradient[one])
        of_shares = wanted @ heads(value[its]).mT
        of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) / math.sqrt(query.shape[-1])
        found[0][one] = heads(of_scores @ heads(key[its]))
        found[1][its] = heads(of_scores.mT @ heads(query[one]))
        found[2][its] = heads(shares.mT @ wanted)
    return found


@pytest.fixture(scope="module", autouse=True)
def kernel_of_a_cpu():
    varlen._varlen_attn.register_kernel("cpu")(forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(backward)


@pytest.fixture(params=[False, True], ids=["norm after", "norm first"])
def encoders(request, monkeypatch):
    """The same encoder twice, the first as a GPU trains it; and what counts the first one's graphs."""
    monkeypatch.setattr(model.network.encoder, "_packed_attention", _by_kernel)
    torch._dynamo.reset()
    torch.manual_seed(0)
    sizes = NetworkSettings(d_model=16, n_layers=3, n_heads=2, d_feedforward=32, dropout=0.0, norm_first=request.param)
    ours, plain, counter = Encoder(sizes, 1e-12), Encoder(sizes, 1e-12), CompileCounter()
    plain.load_state_dict(ours.state_dict())
    for block in ours.layer:
        block.compile(dynamic=True, fullgraph=True, backend=counter)
    yield ours.train(), plain.train(), counter
    torch._dynamo.reset()


def rows(n_rows, longest):
    torch.manual_seed(n_rows * longest)
    lengths = torch.randint(1, longest + 1, (n_rows, 1))
    return torch.randn(n_rows, longest, 16), torch.arange(longest) < lengths


@pytest.mark.long
@pytest.mark.parametrize("only_first", [False, True])
def test_packed_rows_are_learnt_from_as_padded_ones(encoders, only_first):
    ours, plain, _ = encoders
    for shape in SHAPES:
        tokens, real = rows(*shape)
        read = (real[:, :1] if only_first else real)[..., None]
        gradient, outcomes = torch.randn(read.shape) * read, []
        for answer in (ours.packed(tokens, real, only_first), plain(tokens, real[:, None, None], only_first)):
            encoder = ours if not outcomes else plain
            encoder.zero_grad()
            answer.backward(gradient.expand_as(answer))
            outcomes.append([answer * read, *(weight.grad for weight in encoder.parameters())])
        for packed, padded in zip(*outcomes, strict=True):
            assert torch.allclose(packed, padded, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_batches_of_all_shapes_are_few_graphs_and_what_is_read_between_trainings_none(encoders):
    """Beyond `recompile_limit` graphs torch compiles no more, and says so in a line of a log."""
    ours, _, counter = encoders
    counts = []
    for _epoch, only_first in itertools.product(range(2), (False, True)):
        for shape in SHAPES:
            tokens, real = rows(*shape)
            ours.train().packed(tokens, real, only_first).sum().backward()
        counts.append(counter.frame_count)
        with eager(torch.device("cuda")), torch.no_grad():
            for shape, masked in itertools.product(SHAPES, (False, True)):
                tokens, real = rows(*shape)
                ours.eval()(tokens, real[:, None, None] if masked else None, only_first)
        assert counter.frame_count == counts[-1]
    assert 0 < counts[0] < counts[1] == counts[3] <= torch._dynamo.config.recompile_limit
