"""Open a file of text in its declared encoding."""

import codecs
import io

from tasks.params import CsvSource, JsonlSource

MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
"""Encodings whose decoder keeps the mark of byte order as an invisible character, and that mark."""


def open_text(file: io.BufferedReader, source: CsvSource | JsonlSource, newline: str = "") -> io.TextIOWrapper:
    """Return a file's text without the mark of its byte order."""
    mark = MARKS.get(codecs.lookup(source.encoding).name, b"")
    if mark and file.peek(len(mark)).startswith(mark):
        file.read(len(mark))
    return io.TextIOWrapper(file, source.encoding, newline=newline)


def no_text(error: UnicodeDecodeError, line: int) -> ValueError:
    """Return the error of a file with bytes that are no text after a line."""
    return ValueError(
        f"after line {line}: every byte must be {error.encoding}, and byte 0x{error.object[error.start]:02x} is "
        "not; write the file anew or set source.encoding"
    )
