"""Make each line that a step of a run prints a line of JSON, where LAMPLIGHTER_LOG=json asks for it.

    {"time": "2013-07-01T03:00:12.345Z", "level": "info", "product": "flight-delays", "as_of": "2013-06-30",
     "stage": "validate", "run": "flight-delays-2013-06-30-predict-b7a833d6", "message": "validate: 966 rows in = ..."}

Without it lines are what a person reads. This is the one place: everybody prints, and nothing else knows of it. Level
is `error` for what stopped a step, `warning` for other lines of standard error, `info` for all else, such as a progress
bar. `run` is absent where a stage is called by hand. A text of several lines that is printed at once is one line here.
A line that is such JSON already, as of a stage that a task shows, passes as it is.
"""

import io
import json
import os
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, TextIO

from tasks.runtime.errors import UserError

FORMAT = "LAMPLIGHTER_LOG"
"""The variable that asks for a format: text, which is the default, or json."""
RUN = "LAMPLIGHTER_RUN"
"""The variable by which the programs of a run know its name."""
Level = Literal["info", "warning", "error"]
_ABOUT: dict[str, str] = {}
"""What this process works on: the keys between level and message."""


def tell_of(*, product: str = "", as_of: str = "", stage: str = "", run: str = "") -> None:
    """Have the lines that follow say what they are of; a product begins anew, without it facts are added.

    Raises UserError for a format that is none.
    """
    if product:
        _ABOUT.clear()
    given = {"product": product, "as_of": as_of, "stage": stage, "run": run or os.environ.get(RUN, "")}
    known = {name: text or _ABOUT.get(name, "") for name, text in given.items()}
    _ABOUT.clear()
    _ABOUT.update({name: text for name, text in known.items() if text})
    if asked_for_json():
        if not isinstance(sys.stdout, JsonLines):
            sys.stdout = JsonLines(sys.stdout, "info")
        if not isinstance(sys.stderr, JsonLines):
            sys.stderr = JsonLines(sys.stderr, "warning")
            sys.excepthook = _print_exception


def asked_for_json() -> bool:
    """Return whether lines are to be JSON. Raises UserError for a format that is none."""
    asked = os.environ.get(FORMAT) or "text"
    if asked not in ("text", "json"):
        raise UserError(f"{FORMAT} must be text or json, got {asked!r}; set it so, or unset it")
    return asked == "json"


def print_error(text: str, stream: TextIO | None = None) -> None:
    """Print what stopped a step, to standard error unless a stream is given; JSON says that it is an error."""
    stream = stream or sys.stderr
    if isinstance(stream, JsonLines):
        stream.print_line(text, "error")
    else:
        print(text, file=stream, flush=True)


class Begun(threading.local):
    """What a thread has begun to print: two that print at once get a line each."""

    text = ""
    is_bar = False
    """Whether it is a state of a progress bar."""


class JsonLines(io.TextIOBase):
    """A stream that writes each text to another one, as a line of JSON when it is whole."""

    def __init__(self, stream: TextIO, level: Level) -> None:
        self._stream, self._level, self._begun = stream, level, Begun()

    def write(self, text: str) -> int:
        """Take a text; what ends with a line's end is printed, the rest waits for its end."""
        begun = self._begun
        begun.text = (begun.text + text).replace("\r\n", "\n")
        if "\r" in begun.text:
            begun.is_bar = True
            *states, begun.text = begun.text.split("\r")
            for state in states:
                self.print_line(state, "info")
        if begun.text.endswith("\n"):
            self.close()
        return len(text)

    def print_line(self, text: str, level: Level) -> None:
        """Print a text as one line; nothing where it is empty."""
        text = text.strip("\n")
        if not text.strip():
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "level": level, **_ABOUT, "message": text}, ensure_ascii=False)
        self._stream.write((text if is_line(text) else line) + "\n")
        self._stream.flush()

    def flush(self) -> None:
        """Do nothing: a whole line is flushed when it is printed, and a part of one waits."""

    def close(self) -> None:
        """Print what was begun; the stream behind stays open."""
        text, level = self._begun.text, "info" if self._begun.is_bar else self._level
        self._begun.text, self._begun.is_bar = "", False
        self.print_line(text, level)

    def isatty(self) -> bool:
        """Return False: what follows the lines is a program."""
        return False

    def fileno(self) -> int:
        """Return the descriptor of the stream behind, which programs inherit."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return that of the stream behind."""
        return self._stream.encoding


def is_line(text: str) -> bool:
    """Return whether a text is a line of JSON as this module writes them."""
    if not text.startswith('{"time": "') or "\n" in text:
        return False
    try:
        return {"time", "level", "message"} <= json.loads(text).keys()
    except ValueError:
        return False


def _print_exception(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    print_error("".join(traceback.format_exception(kind, error, at)))
