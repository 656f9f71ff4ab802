"""The socket to taskd: lines of JSON, each whole, whoever sends them."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Dict, Iterator, List

#: Longest line of the protocol, in bytes.
MAX_LINE = 16 << 20


def encode(line: Dict[str, Any]) -> bytes:
    """A line of the protocol.

    :raises TypeError, ValueError: it holds something that is no JSON.
    """
    # Not in ASCII: half of a surrogate pair, which no other language reads, is an error then.
    return json.dumps(line, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Link:
    """Both directions. Sending is for any thread; what one call sends stays together."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.lock = threading.RLock()

    def send(self, *lines: bytes) -> None:
        """Send lines. Waits while no daemon reads (one that died is replaced within moments)."""
        with self.lock:
            try:
                self._socket.sendall(b"".join(lines))
            except (BrokenPipeError, ConnectionResetError):
                # Nobody will ever read: the launcher is gone, and so are we soon.
                pass

    def lines(self) -> Iterator[Dict[str, Any]]:
        """What taskd says, until it says no more. What is no line of the protocol is passed over: a daemon
        that died may have left the beginning of one."""
        held: List[bytes] = []
        while True:
            try:
                chunk = self._socket.recv(64 << 10)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                return
            *whole, rest = chunk.split(b"\n")
            for end in whole:
                held.append(end)
                line = b"".join(held)
                held.clear()
                try:
                    said = json.loads(line) if line else None
                except ValueError:
                    said = None
                if isinstance(said, dict):
                    yield said
            if rest:
                held.append(rest)
