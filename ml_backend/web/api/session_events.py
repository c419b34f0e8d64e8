"""What happens in a training, as it happens: server-sent events.

A stream looks into the records about once a second, in threads of its own, so that any number of
trainers and web processes may be at work. It sends `session` when the session has changed, `point`
when an epoch is over, and `end` with the final session. Each event's id says how much a listener
has got, so that one that comes back with `Last-Event-ID` gets the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import anyio
import anyio.to_thread
import orjson
import structlog
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ml_backend.errors import Busy, NotFound, StoreError
from ml_backend.learning import ENDED, EpochPoint, Session
from ml_backend.service.sessions import TrainingDesk
from ml_backend.web.api.session_shapes import point_json, session_json

EVENT_STREAM: Final = "text/event-stream"
MOST_LISTENERS: Final = 100  # in a web process
POLL_S: Final = 1.0
PING_S: Final = 15.0  # proxies close what is silent for long
LONGEST_S: Final = 3600.0  # then the listener comes back, and shows its token again
AWAY_S: Final = 30.0  # so long the records may be away
RETRY_MS: Final = 3000  # until a listener that lost its stream comes back
_LOOKERS: Final = 4  # threads, for all streams of a process together
_ID: Final = re.compile(r"(\d{1,15})-(\d{1,15})-([0-9a-f]{12})(-end)?")
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would keep events back
}

log = structlog.get_logger(__name__)


class SessionEvents:
    """Opens streams; one for the application."""

    def __init__(
        self,
        training: TrainingDesk,
        *,
        stopping: threading.Event,
        most: int = MOST_LISTENERS,
        poll_s: float = POLL_S,
        ping_s: float = PING_S,
        longest_s: float = LONGEST_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare it.

        Args:
            training: Where sessions and curves are found.
            stopping: Set when this process is to end: streams would keep it for ever.
            most: Listeners at once; more are sent away.
            poll_s: Seconds between two looks.
            ping_s: Seconds of silence after which a comment is sent.
            longest_s: Seconds until a stream ends by itself.
            clock: Seconds.
        """
        self._training = training
        self._stopping = stopping
        self._most = most
        self._poll_s = poll_s
        self._ping_s = ping_s
        self._longest_s = longest_s
        self._clock = clock
        self._listeners = 0
        self._limiter: anyio.CapacityLimiter | None = None  # belongs to the event loop

    @property
    def listeners(self) -> int:
        """Return how many streams are open."""
        return self._listeners

    async def open(self, session_id: str, last_event_id: str | None) -> Response:
        """Return the stream of a session.

        Args:
            session_id: Or the beginning of it.
            last_event_id: Of the event that the listener got last; None = it begins.

        Raises:
            NotFound, BadRequest: there is no such session, or there are several.
            Busy: too many listen already.
            StoreError
        """
        if self._listeners >= self._most:
            raise Busy(
                f"{self._most} programs follow trainings here already; ask for the session every "
                "few seconds instead, or come back later."
            )
        self._listeners += 1
        try:
            session = await self._in_thread(self._training.get, session_id)
            follower = _Follower(last_event_id)
            if follower.knows_end_of(session):
                self._close()
                return Response(status_code=204)  # else a browser would come back for ever
            return _Stream(self._stream(session.id, follower), on_close=self._close)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        self._listeners -= 1

    async def _stream(self, session_id: str, follower: _Follower) -> AsyncIterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS
        begun = spoken = seen = self._clock()
        while not self._stopping.is_set() and self._clock() - begun < self._longest_s:
            try:
                events = await self._in_thread(self._news, session_id, follower)
                seen = self._clock()
            except NotFound:
                if follower.last is not None:  # it was deleted
                    yield follower.end(follower.last)
                return
            except StoreError as error:
                if self._clock() - seen > AWAY_S:
                    return  # the listener comes back
                log.warning("session cannot be followed now", reason=error.message)
                events = []
            for event in events:
                yield event
                spoken = self._clock()
            if follower.has_ended:
                return
            if self._clock() - spoken >= self._ping_s:
                yield b": ping\n\n"
                spoken = self._clock()
            await asyncio.sleep(self._poll_s)

    def _news(self, session_id: str, follower: _Follower) -> list[bytes]:
        session = self._training.get(session_id)  # first: all points are there once it has ended
        points = None
        if follower.wants_points(session, self._training.curve_length(session_id)):
            points = self._training.curve(session_id)
        return list(follower.news(session, points))

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_LOOKERS)
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)


class _Stream(StreamingResponse):
    """A stream that tells when it is over, however it ends, begun or not."""

    def __init__(self, content: AsyncIterator[bytes], *, on_close: Callable[[], None]) -> None:
        super().__init__(content, media_type=EVENT_STREAM, headers=_HEADERS)
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_close()


class _Follower:
    """What one listener has got; used by one thread at a time."""

    def __init__(self, last_event_id: str | None) -> None:
        """Go on after that event; an id that is not ours begins anew."""
        known = _ID.fullmatch(last_event_id or "")
        self._lease = int(known[1]) if known else 0  # under which what was sent is final
        self._epoch = int(known[2]) if known else 0  # the last one that was sent
        self._digest = known[3] if known else ""  # of the session that was sent last
        self._knows_end = bool(known and known[4])
        self._sent: dict[int, EpochPoint] | None = None  # None: nothing was sent in this stream
        self._length: tuple[int, int] | None = None  # of the curve: epochs, the last one
        self._seen_lease: int | None = None
        self._top = 0  # the last epoch that an earlier lease has made
        self.last: Session | None = None
        self.has_ended = False

    def knows_end_of(self, session: Session) -> bool:
        """Return whether the listener has got the end, and nothing has happened since."""
        return (
            self._knows_end
            and session.state in ENDED
            and self._digest == _digest_of(_without_heartbeat(session))
        )

    def wants_points(self, session: Session, length: tuple[int, int]) -> bool:
        """Return whether there may be new points.

        A session that goes on from a checkpoint makes those after it again: until the curve has
        outgrown what it was before, it may have changed anywhere.
        """
        is_grown = length != self._length
        self._length = length
        return is_grown or session.lease != self._lease

    def news(self, session: Session, points: Sequence[EpochPoint] | None) -> Iterator[bytes]:
        """Yield the events that the listener has not got."""
        content = _without_heartbeat(session)
        digest = _digest_of(content)
        is_end = session.state in ENDED
        if digest != self._digest and not is_end:
            self._digest = digest
            yield self._event("session", session_json(session))
        for point in self._new_points(session, points) if points is not None else ():
            yield self._event("point", point_json(point))
        self.last = session
        if is_end:
            yield self.end(session)

    def end(self, session: Session) -> bytes:
        """Return the last event."""
        self.has_ended = True
        self._digest = _digest_of(_without_heartbeat(session))
        return self._event("end", session_json(session))

    def _new_points(self, session: Session, points: Sequence[EpochPoint]) -> Iterator[EpochPoint]:
        if self._sent is None:
            known = self._epoch if session.lease == self._lease else 0
            self._sent = {point.epoch: point for point in points if point.epoch <= known}
        last = points[-1].epoch if points else 0
        if session.lease != self._seen_lease:
            self._seen_lease = session.lease
            is_first = session.lease <= 1  # nothing of an earlier one is there to be made again
            self._top = 0 if is_first else max([last, *self._sent])
        if last > self._top:
            self._lease = session.lease
        new = [point for point in points if self._sent.get(point.epoch) != point]
        self._sent = {point.epoch: point for point in points}
        for point in new:
            self._epoch = point.epoch
            yield point

    def _event(self, kind: str, content: Mapping[str, Any]) -> bytes:
        mark = f"{self._lease}-{self._epoch}-{self._digest or '0' * 12}"
        if kind == "end":
            mark += "-end"
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (
            mark.encode(),
            kind.encode(),
            orjson.dumps(content),
        )


def _without_heartbeat(session: Session) -> dict[str, Any]:
    return {name: value for name, value in session_json(session).items() if name != "heartbeat_at"}


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(content)).hexdigest()[:12]
