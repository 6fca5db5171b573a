"""Oracle: pictures that a word decides; patches and bits counted by hand; changes of hidden blocks, which tell none."""

import shutil
from datetime import date, timedelta
from math import log2

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product, predicted, report, through_all_stages, to_split
from PIL import Image

from model.features.fitted import Features
from model.features.kinds import guessed_columns
from model.features.kinds.patches import MAX_PATCHES, as_picture, fit_patches, nearest, patches_of
from model.features.pixels import Picture, read_image, stored
from model.heads import head_of
from model.network.network import Network
from model.scoring.export import parity
from model.scoring.scorer import Scorer, TorchScorer
from model.scoring.surprise import surprise_columns
from model.scoring.synthesis import RowMaker
from model.settings import NetworkSettings, PretrainingSettings
from model.target import Target
from model.training.masking import WHOLE, hide_shares, hide_tokens
from model.training.train import pretrain
from tasks.erasure.beside import REMOVED, without
from tasks.erasure.made import Judged, erase_report
from tasks.erasure.subject import Subject
from tasks.publication.object_store import StoredObject
from tasks.reports.making import render_here
from tasks.rows import model_inputs
from tasks.runtime.files import read_json
from tasks.runtime.paths import Paths
from tasks.training.held_out.pictures import GREY, HalfHidden, errors_of

pytestmark = pytest.mark.long

COLUMNS = {"shape": "category", "picture": "image"}
SHAPES = ("bar", "cross", "line")
SIDE = 12
SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0)
PATHS, AS_OF = Paths("tiny"), date(2024, 2, 10)
CHANGES = {
    "source": {"kind": "csv", "url": "source/parcels.csv", "pixels": SIDE},
    "columns": COLUMNS,
    "target": {"task": "reconstruct"},
    "predict": {"horizon_days": 1, "shards": 3, "rows_per_shard": 7, "make_rows": 300},
    "gates": {},
    "expectations": [],
    "model__init": "scratch",
    "model__network": {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_feedforward": 64},
    "model__train": {"epochs": 20, "batch_tokens": 256, "learning_rate": 0.005},
}


def pixels_of(stored_cell):
    return np.asarray(read_image(stored_cell))


def drawn(shape, place):
    """A white bar or line at one of three places, or both, on black."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    at = slice(1 + 4 * place, 3 + 4 * place)
    if shape in ("bar", "cross"):
        pixels[:, at] = 255
    if shape in ("line", "cross"):
        pixels[at] = 255
    return pixels


def cell(pixels):
    return stored(Image.fromarray(pixels))


def sketches(n=900, seed=0):
    """Pictures named by what is drawn on them; every twentieth picture is missing."""
    random = np.random.default_rng(seed)
    shapes = random.choice(SHAPES, n)
    day = pd.Timestamp("2024-01-10") + pd.to_timedelta(random.integers(0, 33, n), "D")
    pictures = [cell(drawn(shape, random.integers(3))) for shape in shapes]
    return pd.DataFrame(
        {
            "parcel_id": [f"p{number:05d}" for number in range(n)],
            "day": day.strftime("%Y-%m-%d"),
            "shape": shapes,
            "picture": [None if number % 20 == 0 else each for number, each in enumerate(pictures)],
        }
    )


def a_table(n=60, seed=0):
    rows = sketches(n, seed)
    pictures = np.array([None if pd.isna(each) else each for each in rows.picture], object)
    return {"shape": rows["shape"].to_numpy(object), "picture": pictures}


def untrained(table, kinds=COLUMNS):
    """A network that has learnt nothing, and the features that it reads by."""
    features = Features.fit(kinds, table, None, "reconstruct", max_tokens=8)
    target = Target(task="reconstruct", classes=tuple(guessed_columns(kinds)))
    return Network(SMALL, features.sizes, target, seed=1).eval(), features


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a product with images and without labels that went through all stages, and evaluate's line."""
    folder = tmp_path_factory.mktemp("images")
    with through_all_stages(folder, sketches(), CHANGES, AS_OF) as line:
        yield folder, line


@pytest.fixture
def product(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return a_product(**CHANGES)


def test_patches_are_the_blocks_themselves_where_few_differ():
    blocks = np.array([[0, 9], [0, 9], [200, 1], [3, 3]], np.uint8)
    assert fit_patches(blocks).tolist() == [[0, 9], [3, 3], [200, 1]]
    assert fit_patches(np.empty((0, 16), np.uint8)).tolist() == [[0] * 16]


def test_patches_of_many_blocks_are_centres_and_each_block_has_the_nearest():
    random = np.random.default_rng(0)
    centres = random.integers(20, 236, (40, 16))
    blocks = (centres[random.integers(40, size=3000)] + random.integers(-3, 4, (3000, 16))).astype(np.uint8)
    patches = fit_patches(blocks)
    assert len(patches) <= MAX_PATCHES
    distances = ((blocks[:, None].astype(int) - patches.astype(int)) ** 2).sum(-1)
    assert np.array_equal(nearest(blocks, patches), distances.argmin(1))
    assert distances.min(1).mean() < 16 * 4  # a step of 3 up or down has a mean square of 4
    assert np.array_equal(fit_patches(blocks), patches)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_kept_as_a_picture_that_people_can_look_at(channels):
    patches = np.unique(
        np.random.default_rng(0).integers(0, 256, (MAX_PATCHES, 16 * channels)).astype(np.uint8), axis=0
    )
    kept = Picture(side=3, channels=channels, n_patches=len(patches), patches=as_picture(patches, channels))
    assert np.array_equal(patches_of(kept), patches)
    assert read_image(kept.patches).size == (64, 64)


def test_block_is_encoded_as_the_number_of_its_patch_and_missing_as_0(tmp_path):
    table = a_table()
    features = Features.fit(COLUMNS, table, None, "reconstruct", max_tokens=8)
    features.save(tmp_path)
    assert Features.load(tmp_path) == features
    encoded = features.encode(table)["images"]
    assert encoded.shape == (60, 9, 1)
    assert (encoded[np.array([each is None for each in table["picture"]])] == 0).all()
    patches = patches_of(features.fitted["image"].columns["picture"])
    pixels = np.asarray(read_image(table["picture"][1]))
    assert np.array_equal(patches[encoded[1, 5, 0] - 1].reshape(4, 4), pixels[4:8, 8:12])


def test_what_is_hidden_of_an_image_moves_no_guess():
    table = a_table()
    network, features = untrained(table)
    one, other = (network.batch_of(features.encode(a_table(seed=seed)), np.arange(1, 2)) for seed in (0, 3))
    hidden = torch.tensor([[False, *(number in (1, 4, 8) for number in range(9))]])
    mixed = {**one, "images": torch.where(hidden[:, 1:, None], other["images"], one["images"])}
    assert not torch.equal(one["images"], mixed["images"])
    with torch.inference_mode():
        tokens, changed = (network.encode(batch, hidden_columns=hidden)[0] for batch in (one, mixed))
    assert torch.equal(tokens, changed)


def test_bits_of_an_image_are_the_mean_of_its_blocks_hidden_in_four_groups():
    table = a_table()
    network, features = untrained(table)
    batch = network.batch_of(features.encode(table), np.arange(6))
    bits = np.zeros(6)
    with torch.inference_mode():
        for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
            blocks = [3 * row + column for row in range(down, 3, 2) for column in range(across, 3, 2)]
            hidden = torch.zeros(6, 10, dtype=torch.bool)
            hidden[:, [1 + block for block in blocks]] = True
            tokens, _ = network.encode(batch, hidden_columns=hidden)
            for block in blocks:
                shares = (
                    network.filling.heads["image"].heads[0](network.filling.transform(tokens[:, 2 + block])).softmax(-1)
                )
                bits += [-log2(shares[row, batch["images"][row, block, 0].long()]) for row in range(6)]
        assert np.allclose(network.scores(batch)[:, 1], bits / 9, atol=1e-4)


def test_images_are_hidden_whole_or_by_shares_and_never_where_they_are_seen():
    torch.manual_seed(0)
    cells = hide_shares(4000, 2)
    hidden = hide_tokens(cells, [1, 16])
    assert torch.equal(hidden[:, 0], cells[:, 0])
    assert not hidden[~cells[:, 1], 1:].any()
    counts = hidden[cells[:, 1], 1:].sum(1)
    assert counts.min() == 1
    assert (counts == 16).float().mean() == pytest.approx(WHOLE + (1 - WHOLE) / 16, abs=0.02)
    assert (counts == 5).float().mean() == pytest.approx((1 - WHOLE) / 16, abs=0.02)


def test_pretraining_learns_patches_that_are_hidden():
    table = a_table(300)
    features = Features.fit(COLUMNS, table, None, "reconstruct", max_tokens=8)
    settings = PretrainingSettings(epochs=20, batch_tokens=512, learning_rate=1e-2)
    _, history = pretrain(features, features.encode(table), SMALL, settings)
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]


def test_two_columns_of_images_may_differ_in_size_and_colour():
    random = np.random.default_rng(0)
    large = [Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8)) for _ in range(40)]
    table = {"picture": a_table(40)["picture"], "photo": np.array([stored(each) for each in large], object)}
    network, features = untrained(table, {"picture": "image", "photo": "image"})
    assert features.encode(table)["images"].shape == (40, 9 + 16, 1)
    with torch.inference_mode():
        scores = network.scores(network.batch_of(features.encode(table), np.arange(40)))
    assert scores.shape == (40, 6)
    ((_, rows),) = RowMaker(network, features, table, seed=0).rows(0, 3)
    assert [read_image(each).mode for each in rows["photo"]] == ["RGB"] * 3


def test_exported_model_scores_images_as_torch_does(product):
    rows = model_inputs.split_part(PATHS.splits, "test", product).sample(50).read_all()
    assert parity(PATHS.trained, PATHS.onnx, [rows]) < 1e-3


def test_swapped_words_and_pictures_are_told_from_rows_as_they_came(product):
    measured = report("evaluation.json")["model"]
    assert measured["auc"] > 0.8
    assert measured["per_class"]["shape"]["auc"] > 0.8
    assert set(measured["per_class"]) == set(COLUMNS)


def test_picture_of_noise_is_named_with_where_other_pixels_were_expected(product):
    scorer = Scorer(PATHS.onnx)
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    spoilt = drawn("cross", 1)
    spoilt[8:, 8:] = 255  # the last block, where black is expected
    table = {
        "shape": np.array(["bar", "cross", "bar", "line"], object),
        "picture": np.array([cell(noise), cell(spoilt), None, cell(drawn("bar", 0))], object),
    }
    scores = scorer.score(table)
    told = {
        **head_of("reconstruct").night_columns(scores, scorer.classes, 0.5),
        **surprise_columns(scorer, table, scores),
    }
    assert told["prediction"].tolist()[:2] == ["picture", "picture"]
    assert told["surprise_percentile"][0] > 99
    assert told["surprise_cell"][1] == "an image"
    assert told["surprise_expected"][1] == "other pixels in rows 9 to 12, columns 9 to 12"
    assert np.isfinite(scores).all()
    assert told["surprise_percentile"][3] > 90  # a bar that is called a line


def test_night_of_images_has_the_surprise_of_every_row_as_one_alone_would(product):
    found = predicted()
    rows = pd.concat([pd.read_parquet(file) for file in sorted((PATHS.valid / "rows").rglob("*2024-02-11*"))])
    assert len(found) == len(rows) > 20
    scorer, table = Scorer(PATHS.onnx), model_inputs.inputs(rows, product)
    alone = scorer.score({name: column[3:4] for name, column in table.items()})
    same = found[found.parcel_id == rows.parcel_id.iloc[3]].iloc[0]
    assert same.surprise_bits == pytest.approx(alone[0, :2].sum(), abs=1e-3)


def test_made_images_are_stored_ones_and_show_what_the_word_says(product, made):
    rows = pd.read_parquet(PATHS.made_rows / "rows.parquet")
    assert "300 rows made up" in made[1]
    assert 0 < rows.picture.isna().mean() < 0.15
    rows = rows.dropna()
    pixels = [pixels_of(each) for each in rows.picture]
    assert {each.shape for each in pixels} == {(SIDE, SIDE)}
    known = {shape: [drawn(shape, place) for place in range(3)] for shape in SHAPES}
    as_named = [
        any((each == one).all() for one in known[shape]) for each, shape in zip(pixels, rows["shape"], strict=True)
    ]
    assert np.mean(as_named) > 0.6


def test_made_images_depend_on_seed_and_number_alone(product):
    scorer = TorchScorer(PATHS.trained)
    known = model_inputs.split_part(PATHS.splits, "train", product).read_all()
    ((_, whole),) = RowMaker(scorer.network, scorer.features, known, 0).rows(0, 300)
    ((_, few),) = RowMaker(scorer.network, scorer.features, known, 0).rows(250, 280)
    ((_, other),) = RowMaker(scorer.network, scorer.features, known, 1).rows(250, 280)
    assert few["picture"].tolist() == whole["picture"][250:280].tolist() != other["picture"].tolist()
    stored_rows = pd.read_parquet(PATHS.made_rows / "rows.parquet")
    assert [each or None for each in stored_rows.picture.fillna("")] == whole["picture"].tolist()


def test_made_rows_with_images_pass_as_rows_of_a_source(product, tmp_path, monkeypatch):
    rows = pd.read_parquet(PATHS.made_rows / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").mkdir()
    rows.to_parquet("source/made.parquet")
    source = {"kind": "parquet", "url": "source/made.parquet", "pixels": SIDE}
    to_split(a_product(**{**CHANGES, "source": source}), rows.day.max().date() - timedelta(days=1))
    assert report("validation.json")["rows"] == {"rows_in": 300, "rows_valid": 300, "rows_quarantined": 0}


def test_report_shows_images_half_hidden_and_filled_and_made_up(product):
    (found,) = report("evaluation.json")["pictures"]
    assert found["column"] == "picture"
    assert found["error"] < 0.5 * found["error_of_mean"]
    first = found["shown"][0]
    original, hidden, filled = (pixels_of(first[name]) for name in ("original", "hidden", "filled"))
    seen = hidden != GREY
    assert seen.sum() in (64, 80)  # five or four of the nine blocks of 16 pixels are hidden
    assert np.array_equal(hidden[seen], original[seen])
    assert np.array_equal(filled[seen], original[seen])
    rows = pd.read_parquet(PATHS.made_rows / "rows.parquet")
    assert found["made"] == rows.picture.dropna()[:16].tolist()
    page = render_here(product, AS_OF, "0" * 40)
    assert all(each in page for each in (first["key"], first["hidden"], first["filled"], found["made"][-1]))


def test_errors_of_guesses_are_as_counted():
    picture = Picture(side=1, channels=1)
    cells, known = (
        np.array([cell(np.full((4, 4), 51, np.uint8))], object),
        np.array([cell(np.full((4, 4), 204, np.uint8))], object),
    )
    half = HalfHidden(hidden=np.array([[True]]), expected=np.full((1, 1, 16), 102.0), filled=cells)
    found = errors_of(half, picture, cells, known)
    assert found == pytest.approx({"error": 0.2**2, "error_of_mean": 0.6**2, "error_of_nearest": 0.6**2})


def test_erasing_takes_images_that_were_made_up_and_pages_that_show_them(product, tmp_path):
    file = tmp_path / "evaluation.json"
    shutil.copyfile(PATHS.report("evaluation.json"), file)
    nobody = Subject(product, {"parcel_id": "p99999"}, b"secret")
    erase_report(file, nobody, Judged(), name=file.name)
    before, after = (read_json(each)["pictures"][0] for each in (PATHS.report("evaluation.json"), file))
    assert after == {**before, "made": []}
    page = StoredObject(uri="s3://a/b", body=render_here(product, AS_OF, "0" * 40).encode(), etag="")
    key = "tiny/_reports/2024-02-10-aa.html"
    assert without(key, nobody, page, may_show_made=False) == REMOVED.encode()
    assert without(key, nobody, page, may_show_made=True) is None, "its model has not learnt from the row"
    shown = Subject(product, {"parcel_id": before["shown"][0]["key"]}, b"secret")
    erase_report(file, shown, Judged(), name=file.name)
    assert shown.is_in_bytes(PATHS.report("evaluation.json").read_bytes())
    assert not shown.is_in_bytes(file.read_bytes())
