"""Recognise by its first bytes a file that is not the one that was meant, such as a pointer or a page of errors.

Without this a pointer of Git LFS is CSV with one column, and its reader is asked about the delimiter.
"""

import io
import re
from typing import IO

from tasks.params import CsvSource, FileSource, JsonlSource

HEAD_BYTES = 1024
_POINTERS = (
    (rb"version https://git-lfs\.github\.com/spec/", "it is a pointer of Git LFS and not the data; run git lfs pull"),
    (
        rb"(?s)(md5:|outs:)\s.*\bmd5: [0-9a-f]{32}",
        "it is a pointer of DVC (.dvc) and not the data; run dvc pull, and name the file without .dvc",
    ),
    (rb"(?i)(<!doctype html|<html|<\?xml[^>]*>\s*<!doctype html)", "it is an HTML page, such as a login or an error; "),
    (rb"(?i)<\?xml", "it is XML, such as the error of an object store; "),
)
_CONTROL = bytes(code for code in range(32) if chr(code) not in "\t\n\v\f\r\x1b")
MAX_CONTROL_SHARE = 0.05
"""More control characters than this no text has; a single NUL in a cell is a value."""
_ADDRESS = "open the address in a browser and correct it, or its credentials"
_FORMATS = (
    (b"PAR1", "parquet", "Parquet"),
    (b"\x1f\x8b", "", "compressed by gzip"),
    (b"BZh", "", "compressed by bzip2"),
    (b"\x28\xb5\x2f\xfd", "", "compressed by zstd"),
    (b"\xfd7zXZ\x00", "", "compressed by xz"),
    (b"%PDF", "", "PDF"),
    (b"SQLite format 3\x00", "", "an SQLite database"),
    (b"ARROW1", "", "Arrow or Feather"),
)


_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How workbooks begin, new ones and old ones."""


def checked(file: IO[bytes], source: FileSource) -> io.BufferedReader:
    """Return the file, from its first byte on. Raises ValueError where its first bytes are those of another kind."""
    buffered: io.BufferedReader = io.BufferedReader(file)  # type: ignore[arg-type]
    head = buffered.peek(HEAD_BYTES)[:HEAD_BYTES]
    if reason := mistaken_for(head, source):
        raise ValueError(reason)
    return buffered


def mistaken_for(head: bytes, source: FileSource) -> str:
    """Return what a file is that begins so, and the remedy; empty where it may be what the source declares.

    >>> from tasks.params import JsonlSource
    >>> mistaken_for(b"version https://git-lfs.github.com/spec/v1", JsonlSource(kind="jsonl", url="rows"))
    'it is a pointer of Git LFS and not the data; run git lfs pull'
    """
    if not head:
        return "it is empty: 0 bytes; look at the program that writes it"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, reason in _POINTERS:
        if re.match(pattern, text):
            return reason + (_ADDRESS if reason.endswith(" ") else "")
    if head.startswith(_WORKBOOKS) and source.kind != "excel":
        return "it is a workbook, as Excel writes them; set source.kind to excel"
    for magic, kind, name in _FORMATS:
        if head.startswith(magic) and kind != source.kind:
            return f"it is {name}; convert it, or correct source.kind"
    if head[257:262] == b"ustar":
        return "it is a tar archive; unpack it and name the folder"
    if source.kind == "excel" and not head.startswith(_WORKBOOKS):
        return "it is no workbook, as Excel writes them; set source.kind to what it is, such as csv"
    if source.kind == "jsonl" and re.match(rb"\[|\{\s*\n", text):
        return "it is one JSON text over all lines; write each object on a line of its own, as jq -c '.[]' does"
    if isinstance(source, CsvSource) and not source.skip_lines and re.match(rb"(?i)sep=.\r?\n", text):
        return "its first line says sep= to Excel and is no header; set source.skip_lines: 1"
    if isinstance(source, CsvSource | JsonlSource) and not re.search("16|32", source.encoding):
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "it is text in UTF-16; set source.encoding to utf-16"
        n_control = len(head) - len(head.translate(None, _CONTROL))
        if n_control > len(head) * MAX_CONTROL_SHARE:
            return f"it is binary, or its text is not {source.encoding}; convert it, or correct source.encoding"
    return ""
