"""Oracle: Pillow's own decoding of the files, known pictures, and a network that must learn what only pixels tell."""

import base64
import io
import struct
import zlib

import boto3
import fsspec
import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product
from PIL import Image

from model.features.fitted import Features
from model.features.kinds.image import blocks_of
from model.features.kinds.modules.image import cut, move, whole
from model.features.pixels import NO_IMAGE, is_not_stored, read_image, stored_image
from model.network.network import Network
from model.network.store import save_model
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.train import pretrain, train
from tasks.rows.casting import cast_column
from tasks.runtime.errors import TransientError, UserError
from tasks.sources.fetch import fetch, fetch_whole

SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0, max_tokens=8)


def file_of(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def noise(size=(12, 12), mode="L", seed=0):
    bands = () if mode == "L" else (len(mode),)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *bands))
    return Image.fromarray(pixels.astype(np.uint8))


def pixels_of(cell):
    return np.asarray(read_image(cell))


def bomb(side=60_000):
    """A PNG of some bytes that promises thousands of millions of pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_image_of_the_declared_side_is_stored_pixel_for_pixel(mode):
    image = noise(mode=mode)
    for cell in (file_of(image), base64.b64encode(file_of(image)).decode(), {"bytes": file_of(image), "path": "a.png"}):
        stored = stored_image(cell, 12)
        np.testing.assert_array_equal(pixels_of(stored), np.asarray(image))
    assert stored_image("data:image/png;base64," + base64.b64encode(file_of(image)).decode(), 12) == stored


def test_what_an_image_notes_beside_its_pixels_is_not_stored():
    image = noise()
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    assert stored_image(file_of(image, exif=exif), 12) == stored_image(file_of(image), 12)


def test_photo_is_turned_as_its_exif_says_and_fitted_into_a_square():
    photo = Image.new("RGB", (40, 20), "red")
    photo.paste("blue", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: left becomes up
    pixels = pixels_of(stored_image(file_of(photo, "JPEG", quality=95, exif=exif), 16)).astype(int)
    assert pixels.shape == (16, 16, 3)
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, 12:] == 0).all()
    assert (pixels[1:6, 5:11, 2] > 200).all()
    assert (pixels[10:15, 5:11, 0] > 200).all()


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (Image.fromarray(np.full((8, 8), 65535, np.uint16)), 255),
        (Image.fromarray(np.full((8, 8), 257 * 7, np.uint16)), 7),
        (Image.new("RGBA", (8, 8), (9, 9, 9, 0)), 255),
        (Image.new("LA", (8, 8), (9, 255)), 9),
        (Image.new("1", (8, 8), 1), 255),
    ],
)
def test_depth_and_transparency_become_one_byte_of_grey(image, wanted):
    pixels = pixels_of(stored_image(file_of(image), 8))
    assert pixels.shape == (8, 8)
    assert (pixels == wanted).all()


def test_webp_jpeg_and_palette_are_read():
    colour = Image.new("RGB", (8, 8), (10, 200, 30))
    for content in (file_of(colour, "WEBP", lossless=True), file_of(colour, "JPEG"), file_of(colour.quantize(4))):
        pixels = pixels_of(stored_image(content, 8)).astype(int)
        assert np.abs(pixels - [10, 200, 30]).max() <= 4


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (b"", "empty"),
        (b"%PDF-1.4 not a picture", "none of PNG, JPEG, WEBP"),
        (file_of(Image.new("L", (8, 8)), "GIF"), "none of PNG, JPEG, WEBP"),
        (file_of(noise((64, 64)))[:-900], "truncated or damaged"),
        (file_of(noise((64, 64), "RGB"), "JPEG")[:300], "truncated or damaged|header is damaged"),
        (bomb(), "too many pixels|60000 x 60000"),
        ("not base64 at all!", "neither bytes nor their base64"),
        (17, "neither bytes nor their base64"),
        ({"path": "a.png", "bytes": None}, "neither bytes nor their base64"),
    ],
)
def test_cell_that_is_no_image_is_stored_as_its_reason_and_misfits(cell, reason):
    stored = stored_image(cell, 8)
    assert stored.startswith(NO_IMAGE)
    assert any(each in stored for each in reason.split("|"))
    cast, misfits = cast_column(pd.Series([stored, None, stored_image(file_of(noise()), 8)]), "image")
    assert misfits.tolist() == [True, False, False]
    assert cast.isna().tolist() == [True, True, False]


def test_random_damage_never_raises():
    random, whole_file = np.random.default_rng(0), bytearray(file_of(noise((32, 32), "RGB")))
    for _ in range(300):
        damaged = bytearray(whole_file)
        for at in random.integers(0, len(damaged), 3):
            damaged[at] = random.integers(0, 256)
        stored = stored_image(bytes(damaged), 8)
        assert stored.startswith(NO_IMAGE) or pixels_of(stored).shape[:2] == (8, 8)


def test_source_delivers_bytes_and_base64_alike_and_keeps_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [file_of(noise(seed=seed)) for seed in range(2)]
    frame = pd.DataFrame({"parcel_id": ["a", "b", "c", "d"], "day": "2024-01-01", "late": [0, 1, 0, 1]})
    frame.assign(photo=[*files, None, b"x"]).to_parquet("rows.parquet")
    text = [base64.b64encode(content).decode() for content in files]
    frame.assign(photo=[*text, None, "eA=="]).to_csv("rows.csv", index=False)
    found = []
    for kind in ("parquet", "csv"):
        source = {"kind": kind, "url": f"rows.{kind}", "pixels": 12}
        product = a_product(source=source, columns={"photo": "image"}, expectations=[])
        found.append(fetch_whole(product, None, pd.Timestamp("2024-01-02").date())["photo"])
    assert found[0].tolist()[:2] == found[1].tolist()[:2] == [stored_image(content, 12) for content in files]
    assert found[0].isna().tolist() == found[1].isna().tolist() == [False, False, True, False]
    assert is_not_stored(found[0].to_numpy(object))[3]


def rows_naming(names, images):
    """A product whose rows name files, and what its source delivers of them."""
    pd.DataFrame(
        {"parcel_id": [f"p{n}" for n in range(len(names))], "day": "2024-01-01", "late": 0, "photo": names}
    ).to_csv("rows.csv", index=False)
    source = {"kind": "csv", "url": "rows.csv", "pixels": 12, "images": images}
    product = a_product(source=source, columns={"photo": "image"}, expectations=[])
    return product, fetch_whole(product, None, pd.Timestamp("2024-01-02").date())["photo"]


def laid_out(folder):
    """Files of all sorts below a folder, and one beside it."""
    (folder / "photos" / "of day").mkdir(parents=True)
    (folder / "photos" / "of day" / "ü 1.png").write_bytes(file_of(noise()))
    (folder / "photos" / "empty.png").touch()
    (folder / "photos" / "text.png").write_text("no image")
    (folder / "secret.png").write_bytes(file_of(noise(seed=1)))


NAMED = {
    "of day/ü 1.png": "",
    "lacking.png": "there is no such file",
    "empty.png": "empty",
    "text.png": "none of PNG",
    "../secret.png": "leads out of the folder",
    "of day/../../secret.png": "leads out of the folder",
    "http://169.254.169.254/latest": "leads out of the folder",
}


def assert_as_named(stored, names):
    for cell, reason in zip(stored, names.values(), strict=True):
        assert (reason in cell) if reason else (cell == stored_image(file_of(noise()), 12)), cell


def test_paths_below_a_folder_are_read_and_no_other_file_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    laid_out(tmp_path)
    names = NAMED | {str(tmp_path / "secret.png"): "leads out of the folder", "of day": "folder"}
    names |= {str(tmp_path / "photos" / "of day" / "ü 1.png"): ""}
    assert_as_named(rows_naming(list(names), str(tmp_path / "photos"))[1], names)
    assert_as_named(rows_naming(list(NAMED), "photos")[1], NAMED)


def test_paths_in_a_real_store_are_read_and_refused_or_silent_ones_stop(tmp_path, monkeypatch, s3):
    monkeypatch.chdir(tmp_path)
    laid_out(tmp_path)
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    for file in (tmp_path / "photos").rglob("*.png"):
        client.upload_file(file, "lamplighter", f"photos/{file.relative_to(tmp_path / 'photos')}")
    names = NAMED | {"s3://lamplighter/photos/of day/ü 1.png": ""}
    assert_as_named(rows_naming(list(names), "s3://lamplighter/photos/")[1], names)
    fsspec.config.conf["s3"] = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 1}}}
    try:
        with pytest.raises(TransientError, match=r"source.images: of day/ü 1.png could not be read"):
            rows_naming(["of day/ü 1.png"], "s3://lamplighter/photos/")
        fsspec.config.conf["s3"] = {"key": "nobody", "secret": "wrong"}
        with pytest.raises(UserError, match=r"must be readable, and of day/ü 1.png is refused"):
            rows_naming(["of day/ü 1.png"], "s3://lamplighter/photos/")
    finally:
        fsspec.config.conf.clear()


def test_piece_that_names_a_file_that_may_come_is_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    laid_out(tmp_path)
    day = pd.Timestamp("2024-01-02").date()
    product, _ = rows_naming(["of day/ü 1.png", "later.png"], "photos")
    (first,) = fetch(product, None, day)
    assert first.digest == ""
    (tmp_path / "photos" / "later.png").write_bytes(file_of(noise(seed=2)))
    (second,) = fetch(product, None, day)
    assert second.rows["photo"].tolist() == [stored_image(file_of(noise(seed=seed)), 12) for seed in (0, 2)]
    (third,) = fetch(product, None, day, lambda name, digest: digest == second.digest != "")
    assert third.rows is None


def test_blocks_are_put_together_to_the_image_again():
    image = noise((12, 12), "RGB")
    blocks = blocks_of(np.array([stored_image(file_of(image), 12), None], object), 3, 3)
    assert blocks.shape == (2, 9, 49)
    assert not blocks[1].any()
    assert (blocks[0, :, -1] == 1).all()
    pixels = torch.from_numpy(blocks[:1, :, :-1])
    np.testing.assert_array_equal(whole(pixels, 3)[0].permute(1, 2, 0).numpy(), np.asarray(image))
    assert torch.equal(cut(whole(pixels, 3)), pixels)


def test_training_moves_images_a_little_and_leaves_missing_ones():
    torch.manual_seed(0)
    bright = Image.new("L", (24, 24))
    bright.paste(255, (8, 8, 16, 16))
    cells = np.array([stored_image(file_of(bright), 24)] * 20 + [None], object)
    features = Features.fit({"photo": "image"}, {"photo": cells}, None, "binary", max_tokens=8)
    blocks = torch.from_numpy(features.encode({"photo": cells})["images"])
    moved = move(blocks, features.sizes.of("image"), may_mirror=False)
    assert moved.dtype == torch.uint8
    assert torch.equal(moved[..., -1], blocks[..., -1])
    assert not moved[20].any()
    assert (moved[:20] != blocks[:20]).flatten(1).any(1).all()
    bright_pixels = moved[:20, :, :-1].float().sum((1, 2)) / 255
    assert ((bright_pixels > 64 * 0.7) & (bright_pixels < 64 * 1.4)).all()


@pytest.mark.parametrize("may_mirror", [False, True])
def test_half_of_the_images_are_mirrored_where_they_may_be(may_mirror):
    torch.manual_seed(0)
    left = Image.new("L", (24, 24))
    left.paste(255, (2, 8, 8, 16))
    cells = np.array([stored_image(file_of(left), 24)] * 400, object)
    features = Features.fit({"photo": "image"}, {"photo": cells}, None, "binary", max_tokens=8)
    pictures = features.sizes.of("image")
    moved = move(torch.from_numpy(features.encode({"photo": cells})["images"]), pictures, may_mirror)
    shown = whole(moved[..., :-1].float(), pictures[0].side)
    on_the_right = shown[..., 12:].sum((1, 2, 3)) > shown[..., :12].sum((1, 2, 3))
    assert (160 < int(on_the_right.sum()) < 240) if may_mirror else not on_the_right.any()


def a_table(n=240, seed=0):
    """Pictures of colour with a bright bar, upright or lying, at a random place: the label; beside them a number."""
    random = np.random.default_rng(seed)
    upright, at = random.integers(0, 2, n), random.integers(1, 13, (n, 2))
    cells = []
    for bar, (row, column) in zip(upright, at, strict=True):
        pixels = random.integers(0, 60, (16, 16, 3))
        pixels[(slice(None), slice(column, column + 2)) if bar else (slice(row, row + 2), slice(None))] += 150
        cells.append(stored_image(file_of(Image.fromarray(pixels.astype(np.uint8))), 16))
    cells[5] = None
    return {"photo": np.array(cells, object), "size": random.normal(size=n)}, upright


KINDS = {"photo": "image", "size": "number"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained network and its export, and the table; the last 80 rows are held out."""
    folder, (table, y) = tmp_path_factory.mktemp("image"), a_table()
    features = Features.fit(KINDS, table, y, "binary", max_tokens=8)
    network = Network(SMALL, features.sizes, Target(task="binary", classes=("0", "1")), seed=1)
    parts = [slice(120), slice(120, 160)]
    rows, unseen = (
        LabelledRows(features.encode({name: column[at] for name, column in table.items()}), y[at]) for at in parts
    )
    settings = TrainingSettings(epochs=8, learning_rate=0.01, batch_tokens=400)
    network = train(network, features, rows, unseen, settings)[0]
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return folder, table, y


def test_network_learns_what_only_the_pixels_tell(trained):
    folder, table, y = trained
    held_out = {name: column[160:] for name, column in table.items()}
    assert ((Scorer(folder / "onnx").score(held_out) > 0.5) == y[160:]).mean() > 0.9


def test_export_scores_images_as_torch_does_missing_ones_too(trained):
    folder, table, _ = trained
    assert parity(folder / "trained", folder / "onnx", [table]) < 1e-4
    everything_missing = {"photo": np.full(3, None, object), "size": np.full(3, np.nan)}
    assert np.isfinite(Scorer(folder / "onnx").score(everything_missing)).all()


def test_score_of_a_picture_does_not_depend_on_its_batch(trained):
    folder, table, _ = trained
    scorer = Scorer(folder / "onnx")
    rows = [{name: column[at : at + 1] for name, column in table.items()} for at in range(8)]
    alone = np.concatenate([scorer.score(row) for row in rows])
    np.testing.assert_allclose(scorer.score(table)[:8], alone, atol=1e-5)


def test_pretraining_learns_to_fill_hidden_blocks():
    table, _ = a_table(60)
    kinds = {"photo": "image"}
    features = Features.fit(kinds, table, None, "binary", max_tokens=8)
    settings = PretrainingSettings(epochs=5, learning_rate=0.005, batch_tokens=340)
    _, history = pretrain(features, features.encode(table), SMALL, settings)
    every_grey_alike = np.square(features.encode(table)["images"][..., :-1] / 127.5 - 1).mean() * 3
    assert history[-1]["train_loss"] < 0.8 * every_grey_alike
