"""Oracle: attention and the piecewise-linear encoding written out in loops; torch's own cross-entropy."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.features.encoded import Sizes
from model.features.kinds.modules.number import PiecewiseLinear
from model.features.kinds.time import TimeReading
from model.network.dropout import Dropout
from model.network.encoder import PLAIN_ATTENTION_TOKENS, Attention, Encoder
from model.network.network import Network
from model.settings import NetworkSettings
from model.target import Target
from model.training.masking import Hidden, MaskedModel, hide

SMALL = NetworkSettings(d_model=16, n_layers=2, n_heads=4, d_feedforward=32, dropout=0.0)
SIZES = Sizes(
    columns={
        "category": (4, 6),
        "number": ((-1.0, 0.0, 2.0), (0.0, 1.0)),
        "time": (TimeReading(cycles=(0, 1, 2)),),
        "text": (None, None),
    },
    n_subwords=30,
    max_tokens=12,
    cls_id=2,
    sep_id=3,
    pad_id=0,
    mask_id=4,
)


def a_batch(n=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    text = torch.randint(5, 30, (n, 8), generator=random)
    text[:, 4] = text[:, 7] = SIZES.sep_id
    numbers = torch.randn(n, 2, generator=random)
    numbers[0, 0] = math.nan
    times = torch.rand(n, 1, 3, generator=random) * torch.tensor([1440.0, 7.0, 366.0])
    times[1] = math.nan
    return {
        "categories": torch.randint(0, 4, (n, 2), generator=random),
        "numbers": numbers,
        "times": times,
        "text": text,
    }


def test_piecewise_linear_encoding_equals_the_definition():
    edges = ((-1.0, 0.5, 2.0, 2.5), (0.0, 10.0))
    values = np.array([[-3.0, -1.0], [0.0, 3.0], [1.0, 10.0], [2.2, 99.0]], np.float32)
    got = PiecewiseLinear(edges)(torch.from_numpy(values)).numpy()
    for row in range(len(values)):
        for column, its in enumerate(edges):
            for k in range(3):
                expected = 0.0
                if k + 1 < len(its):
                    low, high = its[k], its[k + 1]
                    x = values[row, column]
                    expected = 0.0 if x < low else 1.0 if x >= high else (x - low) / (high - low)
                assert got[column, row, k] == pytest.approx(expected, abs=1e-6)


def test_a_number_lies_in_the_bin_between_its_edges():
    encode = PiecewiseLinear(((-1.0, 0.5, 2.0, 2.5), (0.0, 10.0)))
    numbers = torch.tensor([[-3.0, -1.0], [0.5, 3.0], [2.2, 10.0], [99.0, 99.0]])
    assert encode.bins(numbers).tolist() == [[0, 0], [1, 0], [2, 0], [2, 0]]


def test_attention_equals_loops_over_heads_and_tokens():
    torch.manual_seed(0)
    attention, tokens = Attention(SMALL).eval(), torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    got = attention(tokens, mask[:, None, None]).detach()
    for row in range(2):
        q, k, v = (part(tokens[row]) for part in (attention.query, attention.key, attention.value))
        heads = []
        for head in range(4):
            at = slice(4 * head, 4 * head + 4)
            read = []
            for query in q[:, at]:
                weight = (k[:, at] @ query / 2).exp() * mask[row]
                read.append((weight / weight.sum()) @ v[:, at])
            heads.append(torch.stack(read))
        assert torch.allclose(got[row], attention.output(torch.cat(heads, dim=1)), atol=1e-5)


@pytest.mark.parametrize("n_queries", [None, 1])
def test_attention_while_training_is_attention_with_its_gradients(n_queries):
    torch.manual_seed(0)
    attention, tokens = Attention(SMALL), torch.randn(3, PLAIN_ATTENTION_TOKENS, 16)
    mask = torch.arange(PLAIN_ATTENTION_TOKENS) < torch.tensor([[PLAIN_ATTENTION_TOKENS], [20], [1]])
    outcomes = []
    for mode in (True, False):
        attention.train(mode).zero_grad()
        read = attention(tokens, mask[:, None, None], n_queries)
        read.square().sum().backward()
        outcomes.append([read, *(weight.grad for weight in attention.parameters())])
    for trained, plain in zip(*outcomes, strict=True):
        assert torch.allclose(trained, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("only_first", "norm_first"), itertools.product((False, True), (False, True)))
def test_packed_rows_are_read_as_padded_ones_with_their_gradients(only_first, norm_first):
    torch.manual_seed(0)
    encoder = Encoder(replace(SMALL, norm_first=norm_first), 1e-12)
    tokens = torch.randn(4, 7, 16, requires_grad=True)
    real = torch.arange(7) < torch.tensor([[7], [3], [1], [5]])
    wanted = (real[:, :1] if only_first else real)[..., None]
    outcomes = []
    for read in (encoder.packed(tokens, real, only_first), encoder(tokens, real[:, None, None], only_first)):
        encoder.zero_grad()
        tokens.grad = None
        (read * wanted).square().sum().backward()
        outcomes.append([read * wanted, tokens.grad, *(weight.grad for weight in encoder.parameters())])
    for packed, padded in zip(*outcomes, strict=True):
        assert torch.allclose(packed, padded, rtol=1e-4, atol=1e-5)


def test_dropout_drops_its_share_and_scales_the_rest():
    dropout, ones = Dropout(0.3), torch.ones(1001, 100, requires_grad=True)
    torch.manual_seed(0)
    dropped = dropout(ones)
    kept = dropped != 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.005)
    assert torch.allclose(dropped[kept], torch.tensor(1 / 0.7))
    # Neighbours are drawn from the bits of one number.
    assert np.corrcoef(kept.numpy().reshape(-1)[:100_000].reshape(-1, 4).T)[~np.eye(4, dtype=bool)] == pytest.approx(
        0, abs=0.02
    )
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped.detach())
    torch.manual_seed(0)
    assert torch.equal(dropout(ones), dropped)
    assert torch.equal(dropout.eval()(ones), ones)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_and_neighbours_change_no_answer(norm_first, pooling):
    settings = NetworkSettings(
        d_model=16, n_layers=2, n_heads=4, d_feedforward=32, norm_first=norm_first, pooling=pooling
    )
    network = Network(settings, SIZES, Target(task="multiclass", classes=("a", "b", "c"))).eval()
    batch = a_batch()
    alone = torch.cat([network({name: column[row : row + 1] for name, column in batch.items()}) for row in range(5)])
    padded = {**batch, "text": torch.nn.functional.pad(batch["text"], (0, 3), value=SIZES.pad_id)}
    assert torch.allclose(network(padded), alone, atol=1e-5)


def test_reading_only_the_first_token_gives_what_reading_all_gives():
    network = Network(SMALL, SIZES).eval()
    (every, _), (first, _) = network.encode(a_batch()), network.encode(a_batch(), only_first=True)
    assert torch.allclose(every[:, :1], first, atol=1e-5)


def test_weights_depend_on_the_seed_alone():
    first, again, other = (Network(SMALL, SIZES, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.layer.0.intermediate.weight"], other["encoder.layer.0.intermediate.weight"])


@pytest.mark.parametrize(("read", "unread"), [((0, 1), 2), ((0, 2), 1), ((1,), 0)])
def test_a_time_moves_nothing_through_a_cycle_that_is_not_read(read, unread):
    network = Network(
        SMALL, replace(SIZES, columns={**SIZES.columns, "time": (TimeReading(cycles=read),)}), Target(task="regression")
    ).eval()
    batch, later, other = a_batch(), a_batch(), a_batch()
    later["times"][2, 0, unread] += 1
    other["times"][2, 0, read[0]] += 1
    assert torch.equal(network(batch), network(later))
    assert not torch.equal(network(batch), network(other))


def test_stretch_of_joining_rows_reads_as_the_last_until_it_is_learnt():
    day = 86_400
    fitted, prolonged = (TimeReading(cycles=(), first=0, last=8 * day, until=until) for until in (None, 10 * day))
    target, batch = Target(task="regression"), a_batch()
    batch["times"] = torch.nn.functional.pad(batch["times"], (0, 1), value=0.5)
    last, later = (batch | {"times": batch["times"].clone()} for _ in range(2))
    last["times"][..., 3], later["times"][..., 3] = 1.0, 1.25
    plain, network = (
        Network(SMALL, replace(SIZES, columns={**SIZES.columns, "time": (reading,)}), target, seed=0).eval()
        for reading in (fitted, prolonged)
    )
    for rows in (batch, last):
        assert torch.equal(network(rows), plain(rows))
    assert torch.equal(network(later), network(last))
    with torch.no_grad():
        network.embeddings.times.later.fill_(1.0)
    assert torch.equal(network(batch), plain(batch))
    assert not torch.equal(network(later), network(last))


def test_masked_modelling_asks_for_the_cycles_that_are_read():
    network = Network(SMALL, replace(SIZES, columns={**SIZES.columns, "time": (TimeReading(cycles=(0, 1)),)}), seed=0)
    model, batch = MaskedModel(network, seed=0).eval(), a_batch()
    columns = torch.zeros(5, 5, dtype=torch.bool)
    columns[2, 4] = True
    loss = model(batch, Hidden(columns=columns))
    token = network.encode(batch, hidden_columns=columns)[0][2, 5]
    minute, weekday, _ = batch["times"][2, 0].tolist()
    hour = -model.heads["time"].heads[0][0](token).log_softmax(0)[int(minute // 60)] / math.log(24 + 1)
    day = -model.heads["time"].heads[0][1](token).log_softmax(0)[int(weekday)] / math.log(7 + 1)
    assert loss.item() == pytest.approx((hour + day).item() / 2, rel=1e-5)


def test_no_weight_is_left_uninitialised():
    torch.manual_seed(0)
    first = Network(SMALL, SIZES, Target(task="regression"), seed=3).state_dict()
    torch.manual_seed(1)
    second = Network(SMALL, SIZES, Target(task="regression"), seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(weight.isfinite().all() for name, weight in first.items() if not name.endswith("encode.left"))


def test_another_target_keeps_every_weight_but_the_head():
    network = Network(SMALL, SIZES, seed=5)
    answering = network.with_head(Target(task="binary", classes=("no", "yes")), SMALL, seed=6)
    assert all(torch.equal(weight, answering.state_dict()[name]) for name, weight in network.state_dict().items())


def test_regression_scores_are_in_the_targets_units():
    network = Network(SMALL, SIZES, Target(task="regression", mean=100.0, deviation=7.0)).eval()
    assert torch.allclose(network.scores(a_batch()), network(a_batch())[:, 0] * 7 + 100)


def test_masked_modelling_loss_is_cross_entropy_over_that_of_a_guess():
    network = Network(SMALL, SIZES, seed=0)
    model, batch = MaskedModel(network, seed=0).eval(), a_batch()
    columns = torch.zeros(5, 5, dtype=torch.bool)
    columns[2, 1] = columns[3, 2] = True
    subwords = torch.zeros(5, 8, dtype=torch.bool)
    subwords[4, 1] = True
    seen = torch.where(subwords, SIZES.mask_id, batch["text"])
    loss = model(batch, Hidden(columns=columns, tokens={"text": subwords}, seen={"text": seen}))
    tokens, _ = network.encode({**batch, "text": seen}, hidden_columns=columns)
    category = tokens[2, 2] @ network.embeddings.category_embeddings.weight[4:10].T
    number = model.heads["number"].heads[0](tokens[3, 3])
    bin_of_number = sum(float(batch["numbers"][3, 0]) >= edge for edge in SIZES.of("number")[0][1:-1])
    subword = model.heads["text"].transform(tokens[4, 6 + 1]) @ network.embeddings.word_embeddings.weight.T
    expected = sum(
        -logits.log_softmax(0)[truth] / math.log(len(logits))
        for logits, truth in (
            (category, batch["categories"][2, 1]),
            (number, bin_of_number),
            (subword, batch["text"][4, 1]),
        )
    )
    assert loss.item() == pytest.approx(expected.item() / 3, rel=1e-5)


def test_what_is_hidden_cannot_be_seen():
    network = Network(SMALL, SIZES).eval()
    batch, other = a_batch(seed=0), a_batch(seed=0)
    columns = torch.zeros(5, 5, dtype=torch.bool)
    columns[2] = True
    other["categories"][2] = 3 - other["categories"][2]
    other["numbers"][2] += 1
    other["times"][2] += 1
    assert torch.equal(network.encode(batch, columns)[0], network.encode(other, columns)[0])


def test_separators_padding_and_missing_values_are_never_hidden():
    batch, network = a_batch(200), Network(SMALL, SIZES)
    batch["text"][:, 5:] = SIZES.pad_id
    torch.manual_seed(0)
    hidden = hide(batch, network, 0.99)
    assert not hidden.tokens["text"][(batch["text"] == SIZES.pad_id) | (batch["text"] == SIZES.sep_id)].any()
    assert not hidden.columns[0, 2]
    assert not hidden.columns[1, 4]
    assert torch.equal(hidden.seen["text"] == SIZES.pad_id, batch["text"] == SIZES.pad_id)
    assert torch.equal(hidden.seen["text"][~hidden.tokens["text"]], batch["text"][~hidden.tokens["text"]])
    assert hidden.columns.float().mean() > 0.9


@pytest.mark.parametrize(("task", "classes"), [("binary", ("yes",)), ("multiclass", ("a",)), ("multilabel", ())])
def test_too_few_classes_are_refused(task, classes):
    with pytest.raises(ValueError, match=f"classes must name . for a {task} target, got"):
        Target(task=task, classes=classes)
