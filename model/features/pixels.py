"""Images as cells: what a source delivers, decoded and shrunk once to few pixels of a byte each, and read again.

A stored cell is a PNG without loss, as base64: training, evaluation and nights read the same pixels, and a person may
look at them. Nothing is decoded whose header promises more pixels than a picture has.
"""

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

BLOCK = 4
"""Pixels of the side of a block, of which the network makes a token."""
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
"""Pixels of an image at most: a file of some kilobytes can ask for the memory of thousands of millions."""
STORED = base64.b64encode(b"\x89PNG\r\n\x1a").decode()[:9]
"""How a stored cell begins."""
NO_IMAGE = "no image: "
"""How the cell begins that is stored in place of what is none, before the reason."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What all images of a column have in common."""

    side: int
    """Blocks of a side."""
    channels: int
    """1 for grey, 3 where any of the fitted images has colour."""
    n_patches: int = 0
    """Patches as one of which a block is read; 0 where blocks are not guessed."""
    patches: str = ""
    """These patches as a stored image: see `model.features.kinds.patches`."""

    @property
    def n_blocks(self) -> int:
        """Return the blocks of an image."""
        return self.side**2


def stored_image(cell: object, pixels: int) -> str:
    """Return an image as it is stored: turned as its EXIF says, and fitted into a square of so many pixels a side.

    `cell` is bytes, their base64 (also as a data: URI), a mapping with `bytes`, as Hugging Face writes them, or the
    ValueError that says why there are none. Colour
    stays where there is any, what is transparent becomes white, and the rest of the square black. Of several frames
    the first is read. What is no image becomes NO_IMAGE and the reason.
    """
    try:
        return stored(_fitted(_decoded(_bytes_of(cell)), pixels))
    except ValueError as error:
        return f"{NO_IMAGE}{error}"


def is_not_stored(cells: np.ndarray) -> np.ndarray:
    """Return which cells hold no image as it is stored. Shapes: object [n] -> bool [n].

    >>> is_not_stored(np.array(["no image: empty", "iVBORw0KGgoAAAANSUhEUg=="], object))
    array([ True, False])
    """
    return np.fromiter((not (isinstance(cell, str) and cell.startswith(STORED)) for cell in cells), bool, len(cells))


def stored(image: Image.Image) -> str:
    """Return an image of mode L or RGB as a cell."""
    return base64.b64encode(_png(image)).decode()


def read_image(cell: str) -> Image.Image:
    """Return a stored image, of mode L or RGB."""
    return Image.open(io.BytesIO(base64.b64decode(cell)), formats=("PNG",))


def _bytes_of(cell: object) -> bytes:
    """Return the bytes of a delivered cell. Raises ValueError where it holds none."""
    if isinstance(cell, ValueError):
        raise cell
    if isinstance(cell, Mapping):
        cell = cell.get("bytes")
    if isinstance(cell, str):
        text = cell.partition(",")[2] if cell.startswith("data:") else cell
        if len(text) > MAX_BYTES * 4 // 3 + 4:
            raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
        try:
            cell = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("neither bytes nor their base64; source.images says where files lie") from None
    if not isinstance(cell, bytes | bytearray | memoryview):
        raise ValueError("neither bytes nor their base64")
    if not len(cell):
        raise ValueError("empty")
    if len(cell) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES // 2**20} MiB")
    return bytes(cell)


def _decoded(content: bytes) -> Image.Image:
    """Return the upright image, of mode L or RGB. Raises ValueError for what is none, is damaged or too large."""
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"none of {', '.join(FORMATS)}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ValueError("its header is damaged, or promises too many pixels") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, and at most {MAX_PIXELS:,} are read")
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, EOFError, ZeroDivisionError, Image.DecompressionBombError):
        raise ValueError("truncated or damaged") from None
    return _plain(image)


def _plain(image: Image.Image) -> Image.Image:
    """Return an image without transparency, palette or depth beyond a byte, of mode L or RGB."""
    if image.mode.startswith("I"):  # a grey of two bytes, of which convert would cut what is beyond 255
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) // 257).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        red, green, blue = (np.asarray(band) for band in image.split())
        return image.convert("L") if (red == green).all() and (green == blue).all() else image
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "F") else "RGB")


def _fitted(image: Image.Image, pixels: int) -> Image.Image:
    """Return an image whose longer side is `pixels`, in the middle of a black square."""
    longer = max(image.size)
    width, height = (max(1, round(side * pixels / longer)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if width == height:
        return image
    square = Image.new(image.mode, (pixels, pixels))
    square.paste(image, ((pixels - width) // 2, (pixels - height) // 2))
    return square


def _png(image: Image.Image) -> bytes:
    """Return the image alone as a PNG, without what its file noted beside it."""
    out = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(out, "PNG", compress_level=9)
    return out.getvalue()
