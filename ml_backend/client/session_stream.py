"""Follows a session by its server-sent events, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ml_backend.client.answers import read_answer
from ml_backend.client.call import Call
from ml_backend.client.connection import Connection, PassingFailure
from ml_backend.client.point import Point
from ml_backend.client.server_sent import EventReader, ServerSent
from ml_backend.client.session_event import EventKind, SessionEvent
from ml_backend.client.session_info import SessionInfo
from ml_backend.errors import Busy

SILENCE_S = 45.0  # after which a connection counts as lost: the server pings every 15 s
NO_CONTENT = 204
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0


class SessionStream:
    """The events of one session."""

    def __init__(
        self,
        connection: Connection,
        path: str,
        *,
        after: str | None,
        patience_s: float,
        silence_s: float = SILENCE_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep what is needed; nothing is sent yet.

        Args:
            connection: To the server.
            path: Of the events.
            after: Id of the event to go on after; None = at the beginning.
            patience_s: For how long to try again where the server is not there.
            silence_s: After which a connection counts as lost.
            sleep: Waits.
            clock: Seconds that only grow.
        """
        self._connection, self._path = connection, path
        self._last_id, self._patience_s, self._silence_s = after, patience_s, silence_s
        self._sleep, self._clock = sleep, clock
        self._pause_s = _FIRST_PAUSE_S

    def events(self) -> Iterator[SessionEvent | None]:
        """Yield what happens, the last with the kind END; None whenever some time has passed.

        Raises:
            NotFound: there is no such session.
            ServerUnreachable: the server is not there for longer than `patience_s`.
            BackendError: it refuses.
        """
        heard_at = self._clock()
        while True:
            wanted_pause_s = None
            try:
                with self._connection.attempt(self._call()) as response:
                    heard_at = self._clock()
                    if response.status_code == NO_CONTENT:
                        return  # the end was told before, to whoever `after` comes from
                    reader = EventReader()
                    for piece in response.iter_bytes():
                        heard_at, self._pause_s = self._clock(), _FIRST_PAUSE_S
                        for sent in reader.feed(piece):
                            event = self._event(sent)
                            if event is not None:
                                yield event
                                if event.kind is EventKind.END:
                                    return
                        yield None
                    wanted_pause_s = reader.retry_s
            except PassingFailure as failure:
                is_there = isinstance(failure.error, Busy)
                if not is_there and self._clock() - heard_at > self._patience_s:
                    raise failure.error from failure.__cause__
                wanted_pause_s = failure.wait_s
            yield None
            self._wait(wanted_pause_s)

    def _call(self) -> Call:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._last_id is not None:
            headers["Last-Event-ID"] = self._last_id
        return Call(method="GET", path=self._path, headers=headers, timeout_s=self._silence_s)

    def _event(self, sent: ServerSent) -> SessionEvent | None:
        if sent.kind not in set(EventKind):
            return None  # of a newer server
        kind, content = EventKind(sent.kind), sent.data.encode()
        if kind is EventKind.POINT:
            event = SessionEvent(kind=kind, id=sent.id, point=read_answer(content, Point))
        else:
            event = SessionEvent(kind=kind, id=sent.id, session=read_answer(content, SessionInfo))
        self._last_id = sent.id if sent.id is not None else self._last_id
        return event

    def _wait(self, wanted_s: float | None) -> None:
        self._sleep(min(_LONGEST_PAUSE_S, max(self._pause_s, wanted_s or 0.0)))
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s)
