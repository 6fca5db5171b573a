"""Open a file of text in its declared encoding."""

import io
from typing import IO

from tasks.params import CsvSource, JsonlSource


def open_text(file: IO[bytes], source: CsvSource | JsonlSource, newline: str = "") -> io.TextIOWrapper:
    """Return a file's text without the mark of its byte order."""
    is_utf8 = source.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    return io.TextIOWrapper(file, "utf-8-sig" if is_utf8 else source.encoding, newline=newline)


def no_text(error: UnicodeDecodeError, line: int) -> ValueError:
    """Return the error of a file with bytes that are no text after a line."""
    return ValueError(
        f"after line {line}: every byte must be {error.encoding}, and byte 0x{error.object[error.start]:02x} is "
        "not; write the file anew or set source.encoding"
    )
