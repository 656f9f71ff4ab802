"""Whose output it is, where several runs are under way at once: what a task prints through ``sys.stdout`` and
``sys.stderr`` is sent to taskd with the run that printed it."""

from __future__ import annotations

import io
import sys
from typing import Callable, Dict, TextIO

from ._run import Run, running

#: A line that goes on for so many characters is sent in pieces.
MAX_PIECE = 8 << 10


class Attributed(io.TextIOBase):
    """Stands for a stream: lines of a run go to ``say``, all others to the stream itself."""

    def __init__(self, stream: TextIO, name: str, say: Callable[[Run, str, str, bool], None]) -> None:
        self._stream = stream
        self._name = name
        self._say = say
        self._held: Dict[Run, str] = {}

    def write(self, text: str) -> int:
        run = running.get(None)
        if run is None:
            return self._stream.write(text)
        *lines, rest = (self._held.pop(run, "") + text).split("\n")
        for line in lines:
            self._say(run, self._name, line, False)
        while len(rest) > MAX_PIECE:
            self._say(run, self._name, rest[:MAX_PIECE], True)
            rest = rest[MAX_PIECE:]
        if rest:
            self._held[run] = rest
        return len(text)

    def end(self, run: Run) -> None:
        """A run is over: what it printed without a newline is its last line."""
        rest = self._held.pop(run, "")
        if rest:
            self._say(run, self._name, rest, False)

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def buffer(self) -> object:
        return self._stream.buffer


def by_line() -> None:
    """Have Python pass each line on at once, also into a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def flush() -> None:
    """Pass on what was printed; a stream that a task closed or replaced is its own business."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
