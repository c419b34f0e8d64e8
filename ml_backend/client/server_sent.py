"""Server-sent events, as the HTML standard defines them: bytes in, events out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ml_backend.errors import ServerError

MAX_EVENT_BYTES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class ServerSent:
    """One event."""

    kind: str  # "message" where the server names none
    data: str
    id: str | None  # the last that the server gave, with this event or before


class EventReader:
    """Puts events together from the pieces in which they arrive."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.last_id: str | None = None
        self.retry_s: float | None = None  # that the server wants between two connections
        self._rest = b""
        self._kind = ""
        self._data: list[bytes] = []
        self._size = 0
        self._after_return = False  # the last piece ended within a line end, perhaps

    def feed(self, piece: bytes) -> Iterator[ServerSent]:
        """Yield the events that are whole with this piece.

        Raises:
            ServerError: an event is larger than `MAX_EVENT_BYTES`.
        """
        if not piece:
            return
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_return = piece.endswith(b"\r")
        lines = (self._rest + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise ServerError("The server sends an event that does not end; ask it again.")
        for line in lines:
            event = self._take(line)
            if event is not None:
                yield event

    def _take(self, line: bytes) -> ServerSent | None:
        if not line:
            return self._whole()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._kind = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self.last_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry_s = int(value[:9]) / 1000
        return None

    def _whole(self) -> ServerSent | None:
        data, kind = self._data, self._kind
        self._data, self._kind, self._size = [], "", 0
        if not data:
            return None
        text = b"\n".join(data).decode("utf-8", "replace")
        return ServerSent(kind=kind or "message", data=text, id=self.last_id)
