"""Messages between the driver and the keeper: a JSON object a line over a socket pair."""

import json
import select
import socket
from typing import Any

Message = dict[str, Any]


class Closed(Exception):
    """The other end is gone."""


class Line:
    """One end; what is said is a kind of message and its fields."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self.unread = end, b""

    def say(self, kind: str, **fields: Any) -> None:
        try:
            self.end.sendall(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        except OSError as e:
            raise Closed from e

    def hear(self, timeout: float) -> Message | None:
        """The next message; None where none comes within `timeout` seconds."""
        while b"\n" not in self.unread:
            if not select.select([self.end], [], [], timeout)[0]:
                return None
            try:
                new = self.end.recv(1 << 16)
            except OSError as e:
                raise Closed from e
            if not new:
                raise Closed
            self.unread += new
        first, _, self.unread = self.unread.partition(b"\n")
        message: Message = json.loads(first)
        return message
