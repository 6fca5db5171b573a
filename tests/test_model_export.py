"""Oracle: the torch network itself, for ONNX Runtime; and ONNX Runtime with rows in another order."""

import numpy as np
import onnx
import pytest
import torch

from model.features.fitted import Features
from model.network.network import HEAD_PREFIXES, Network
from model.network.store import load_model, load_pretrained, save_model
from model.scoring.engines import n_cuda_devices
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer, TorchScorer
from model.settings import NetworkSettings
from model.target import FORMAT, Target

KINDS = {
    "colour": "category",
    "size": "number",
    "weight": "number",
    "damp": "context",
    "when": "time",
    "title": "text",
    "body": "text",
}
TASKS = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "multilabel": ("x", "y"), "regression": ()}
DEVIATION = 2.0
"""Of a regression's target."""


def mixed(n, seed=0):
    random = np.random.default_rng(seed)
    when = np.datetime64("2013-01-01T00:00:00") + random.integers(0, 10**7, n).astype("timedelta64[s]")
    when[random.random(n) < 0.2] = "NaT"
    words = random.choice(np.array(["rain", "sun", "wind and hail", "a very long word"], object), (n, 8))
    return {
        "colour": random.choice(np.array(["red", "green", None], object), n),
        "size": np.where(random.random(n) < 0.3, np.nan, random.normal(1000, 300, n)),
        "weight": np.where(random.random(n) < 0.3, np.nan, random.exponential(size=n)),
        "damp": np.where(random.random(n) < 0.1, np.nan, random.integers(100_000, 100_005, n)),
        "when": when,
        "title": np.array([" ".join(row[:2]) if i % 4 else None for i, row in enumerate(words)], object),
        "body": np.array([" ".join(row[: i % 8]) for i, row in enumerate(words)], object),
    }


def random_model(folder, task, kinds=KINDS, wide_tokens=0, max_windows=1, n_layers=2, **settings):
    """A network with lively weights, so that a lost input or a wrong axis shows in the scores."""
    read = {"max_tokens": 24 // max_windows, "max_windows": max_windows, "wide_tokens": wide_tokens}
    features = Features.fit(kinds, mixed(200), None, task, **read)
    sizes = NetworkSettings(
        d_model=16, n_layers=n_layers, n_heads=2, d_feedforward=32, wide_tokens=wide_tokens, **settings
    )
    n_scales = {"binary": 1, "multiclass": 1, "multilabel": 2, "regression": 0}[task]
    calibration = {"scale": (0.6, 1.7)[:n_scales], "offset": (-0.4, 0.3)[:n_scales]}
    target = Target(task=task, classes=TASKS[task], mean=3.0, deviation=DEVIATION, **calibration)
    network = Network(sizes, features.sizes, target, seed=1)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2).add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
        if network.context is not None:
            network.context.weight.copy_(torch.linspace(-0.7, 0.7, target.n_outputs))
        if network.wide is not None:
            network.wide.weight.copy_(
                torch.randn(network.wide.weight.shape, generator=torch.Generator().manual_seed(0))
            )
            network.wide.mix.fill_(0.8)
    save_model(folder, network, features)
    return network, features


LONG = {"multilabel", "regression"}
"""Tasks whose exports take longest."""


@pytest.fixture(
    scope="module", params=[pytest.param(task, marks=[pytest.mark.long] * (task in LONG)) for task in TASKS]
)
def exported(request, tmp_path_factory, export_once):
    folder = tmp_path_factory.mktemp(request.param)
    pooling, norm_first = ("cls", True) if request.param in ("binary", "regression") else ("mean", False)
    wide_tokens = {"binary": 100, "multilabel": 200}.get(request.param, 0)
    max_windows = {"multiclass": 2, "multilabel": 3}.get(request.param, 1)
    random_model(
        folder / "trained", request.param, KINDS, wide_tokens, max_windows, pooling=pooling, norm_first=norm_first
    )
    export_once(folder / "trained", folder / "onnx")  # at the first time, and what engines are tested with
    return request.param, folder


@pytest.mark.parametrize("n", [0, 1, 3, 100])
def test_onnx_scores_as_torch_does(exported, n):
    task, folder = exported
    unit = DEVIATION if task == "regression" else 1.0  # scores are in the target's own units
    assert parity(folder / "trained", folder / "onnx", [mixed(n, seed=5)]) < 1e-4 * unit


def test_freak_numbers_get_finite_scores_and_spoil_no_neighbours(exported):
    _, folder = exported
    table = mixed(40, seed=4)
    torch_too = [Scorer(folder / "onnx"), TorchScorer(folder / "trained")]
    for scorer in torch_too:
        plain = scorer.score(table)
        freak = {**table, **{name: table[name].copy() for name in ("size", "weight", "damp")}}
        for row, value in enumerate((1e300, -1.7e308, 3.5e38, np.inf)):
            for name in ("size", "weight", "damp"):
                freak[name][row] = value
        scores = scorer.score(freak)
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(scores[4:], plain[4:], atol=1e-5)


def test_scores_do_not_depend_on_the_order_of_rows(exported):
    _, folder = exported
    scorer, table = Scorer(folder / "onnx"), mixed(300, seed=2)
    order = np.random.default_rng(0).permutation(300)
    shuffled = scorer.score({name: column[order] for name, column in table.items()})
    np.testing.assert_allclose(shuffled, scorer.score(table)[order], atol=1e-5)


def test_a_stream_of_tables_scores_as_the_tables_one_by_one(exported):
    _, folder = exported
    scorer, tables = Scorer(folder / "onnx"), [mixed(n, seed=n) for n in (40, 1, 0, 90)]
    streamed = list(scorer.score_stream(iter(tables)))
    assert [len(scores) for scores in streamed] == [40, 1, 0, 90]
    for scores, table in zip(streamed, tables, strict=True):
        assert np.array_equal(scores, scorer.score(table))


def test_a_stream_reads_one_table_ahead_and_no_further(exported):
    _, folder = exported
    given = []

    def tables():
        for i in range(5):
            given.append(i)
            yield mixed(10, seed=i)

    stream = Scorer(folder / "onnx").score_stream(tables())
    for i in range(3):
        next(stream)
        assert len(given) <= i + 2
    stream.close()
    assert len(given) <= 4


def test_a_stream_passes_its_source_s_failure_on(exported):
    _, folder = exported

    def tables():
        yield mixed(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Scorer(folder / "onnx").score_stream(tables()))


def test_scores_have_the_shape_and_range_of_their_task(exported):
    task, folder = exported
    scores = Scorer(folder / "onnx").score(mixed(50))
    assert scores.dtype == np.float32
    assert scores.shape == ((50,) if task in ("binary", "regression") else (50, len(TASKS[task])))
    assert scores.std() > 1e-3
    if task == "multiclass":
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    if task != "regression":
        assert 0 <= scores.min() <= scores.max() <= 1


def test_both_scorers_say_who_they_are(exported):
    task, folder = exported
    for scorer, engine in (
        (Scorer(folder / "onnx"), "onnxruntime"),
        (TorchScorer(folder / "trained"), "torch"),
    ):
        assert scorer.classes == TASKS[task]
        assert set(scorer.engine) == {"engine", "version", "provider", "precision"}
        assert scorer.engine["engine"] == engine


def test_every_input_moves_the_scores(exported):
    _, folder = exported
    scorer, table, other = Scorer(folder / "onnx"), mixed(60, seed=3), mixed(60, seed=4)
    before = scorer.score(table)
    for name in KINDS:
        assert np.abs(scorer.score({**table, name: other[name]}) - before).max() > 1e-3, name


def test_onnx_is_one_file_that_names_no_path(exported):
    _, folder = exported
    model = onnx.load(folder / "onnx" / "network.onnx", load_external_data=False)
    assert not any(weight.external_data for weight in model.graph.initializer)
    assert b"/site-packages/" not in (folder / "onnx" / "network.onnx").read_bytes()
    assert b"model/network/network.py" not in (folder / "onnx" / "network.onnx").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("kinds", [{"size": "number"}, {"colour": "category", "when": "time"}, {"body": "text"}])
def test_any_single_kind_of_column_exports_to_the_same_bytes_twice(tmp_path, kinds):
    random_model(tmp_path / "trained", "multiclass", kinds, n_layers=1)
    for name in ("a", "b"):
        export_onnx(tmp_path / "trained", tmp_path / name)
    assert (tmp_path / "a" / "network.onnx").read_bytes() == (tmp_path / "b" / "network.onnx").read_bytes()
    assert parity(tmp_path / "trained", tmp_path / "a", [mixed(40)]) < 1e-4
    nothing = {name: column[:1] for name, column in mixed(200).items()} | {"body": np.array([None], object)}
    assert parity(tmp_path / "trained", tmp_path / "a", [nothing]) < 1e-4


def test_model_read_back_is_the_model_saved(tmp_path):
    network, features = random_model(tmp_path, "multilabel")
    loaded, its_features = load_model(tmp_path)
    assert its_features == features
    assert (loaded.settings, loaded.target) == (network.settings, network.target)
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in network.state_dict().items())


def test_training_starts_from_every_pretrained_weight(tmp_path):
    network, features = random_model(tmp_path, "binary")
    settings = NetworkSettings(d_model=64, n_heads=8, pooling="mean", dropout=0.3)
    start, its_features = load_pretrained(tmp_path, Target(task="multiclass", classes=("a", "b")), settings, seed=0)
    assert (start.settings.d_model, start.settings.pooling, start.settings.dropout) == (16, "mean", 0.3)
    assert its_features == features
    for name, weight in network.state_dict().items():
        assert name.startswith(HEAD_PREFIXES) or torch.equal(weight, start.state_dict()[name])


def test_model_without_a_head_does_not_score(tmp_path):
    features = Features.fit({"size": "number"}, mixed(20), None, "binary", max_tokens=8)
    save_model(tmp_path, Network(NetworkSettings(), features.sizes), features)
    with pytest.raises(ValueError, match="must hold a trained model, got one without a head; train it first"):
        TorchScorer(tmp_path)


def test_folder_of_another_format_is_refused(tmp_path):
    random_model(tmp_path, "binary", {"size": "number"})
    file = tmp_path / "network.json"
    file.write_text(file.read_text().replace(f'"format": {FORMAT}', '"format": 99'))
    with pytest.raises(ValueError, match=f"must have format {FORMAT}, got 99; train the model again"):
        load_model(tmp_path)


def test_gpus_are_counted_as_torch_counts_them():
    assert n_cuda_devices() == torch.cuda.device_count()
