"""A training is followed as it happens, over real sockets, while its rows change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI, Request, Response

from ml_backend.errors import Busy, NotFound, StoreError
from ml_backend.learning import (
    EpochPoint,
    Lease,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.service.sessions import TrainingDesk
from ml_backend.store.database import Database
from ml_backend.store.sessions import Sessions
from ml_backend.web.api.session_events import SessionEvents
from tests.http.conftest import Backend
from tests.http.test_api import PROJECT
from tests.uvicorn_server import uvicorn_server

WITHIN_S = 10.0
pytestmark = pytest.mark.unhurried


@dataclass(frozen=True, kw_only=True)
class Event:
    """A server-sent event."""

    id: str
    kind: str
    data: Any


class Reader:
    """Reads the events of an answer as a browser does."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.comments: list[str] = []
        self.retry: int | None = None
        self._lines = answer.iter_lines()

    def next(self) -> Event | None:
        """Return the next event, None at the end of the stream."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                return Event(
                    id=fields["id"], kind=fields["event"], data=orjson.loads(fields["data"])
                )
            elif "retry" in fields:
                self.retry = int(fields.pop("retry"))
        return None

    def until(self, kind: str) -> list[Event]:
        """Return the events up to the first of a kind, which must come."""
        found = []
        while (event := self.next()) is not None:
            found.append(event)
            if event.kind == kind:
                return found
        raise AssertionError(f"no {kind} came, but {found}")

    def rest(self) -> list[Event]:
        """Return the events up to the end of the stream."""
        return list(iter(self.next, None))


class Desk(TrainingDesk):
    """A desk whose records can be away."""

    away = False

    def get(self, session_id: str, *, with_manifest: bool = False) -> Session:
        """Return the session unless the records are away."""
        if self.away:
            raise StoreError
        return super().get(session_id, with_manifest=with_manifest)


class Site:
    """Streams of real records behind a real server."""

    def __init__(self, backend: Backend, **options: Any) -> None:
        database: Database = backend.own.projects._database
        self.sessions = Sessions(database)
        self.desk = Desk(backend.own.projects, self.sessions)
        self.stopping = threading.Event()
        self.events = SessionEvents(
            self.desk, stopping=self.stopping, **{"poll_s": 0.02, "ping_s": 60.0, **options}
        )
        self.app = FastAPI()
        self.app.add_api_route("/{session_id}", self._answer)
        self.address = ""

    async def _answer(self, request: Request, session_id: str) -> Response:
        try:
            return await self.events.open(session_id, request.headers.get("last-event-id"))
        except NotFound:
            return Response(status_code=404)
        except Busy:
            return Response(status_code=503)

    def request(self) -> Session:
        """Queue a session."""
        return self.sessions.request(
            PROJECT, controls=["cells"], trigger=Trigger.PERSON, parameters=TrainingParameters()
        )

    def claim(self, session: Session) -> Lease:
        """Be its trainer."""
        lease = self.sessions.claim(session.id, owner="trainer", lease_s=60)
        assert lease is not None
        return lease

    def point(self, lease: Lease, epoch: int, loss: float = 0.5) -> None:
        """End an epoch."""
        self.sessions.point(
            lease, EpochPoint(epoch=epoch, step=epoch, loss=loss, learning_rate=1e-4)
        )

    @contextmanager
    def follow(self, session: Session, last_event_id: str | None = None) -> Iterator[Reader]:
        """Open a stream."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        url = f"{self.address}/{session.id}"
        with httpx.stream("GET", url, headers=headers, timeout=WITHIN_S) as answer:
            yield Reader(answer)


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(backend: Backend) -> Iterator[MakeSite]:
    """Yield a maker of sites."""
    servers = []

    def make(**options: Any) -> Site:
        site = Site(backend, **options)
        server = uvicorn_server(site.app)
        site.address = server.__enter__()
        servers.append(server)
        return site

    yield make
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """Return a site."""
    return make_site()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that must come about."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_events_arrive_while_the_rows_change(site: Site) -> None:
    session = site.request()
    with site.follow(session) as reader:
        (first,) = reader.until("session")
        assert (first.data["id"], first.data["state"]) == (session.id, "queued")
        assert reader.retry == 3000

        lease = site.claim(session)
        (running,) = reader.until("session")
        assert (running.data["state"], running.data["currently_training"]) == ("running", True)

        for epoch in (1, 2):
            site.point(lease, epoch, 1 / epoch)
            (point,) = reader.until("point")
            assert (point.data["epoch"], point.data["loss"]) == (epoch, 1 / epoch)
            assert set(point.data) >= {"lr", "val_loss", "ap50", "step", "seconds"}

        site.sessions.note(lease, progress={"epoch": 2, "epochs": 9})
        (told,) = reader.until("session")
        assert told.data["progress"] == {"epoch": 2, "epochs": 9}

        site.point(lease, 3)
        site.sessions.finish(lease, SessionState.COMPLETED, message="Better.", version="v1")
        *points, end = reader.until("end")
        assert [point.data["epoch"] for point in points if point.kind == "point"] == [3]
        assert (end.data["state"], end.data["version"]) == ("completed", "v1")
        assert reader.rest() == []
    wait_until(lambda: site.events.listeners == 0)


def test_the_headers_keep_caches_and_proxies_from_holding_events_back(site: Site) -> None:
    with site.follow(site.request()) as reader:
        headers = reader.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers


def test_a_heartbeat_alone_is_no_news(site: Site) -> None:
    session = site.request()
    lease = site.claim(session)
    with site.follow(session) as reader:
        reader.until("session")
        for _ in range(5):
            site.sessions.heartbeat(lease, 60)
            time.sleep(0.05)
        site.point(lease, 1)
        assert [event.kind for event in reader.until("point")] == ["point"]


def test_one_that_comes_back_gets_the_rest_and_nothing_twice(site: Site) -> None:
    session = site.request()
    lease = site.claim(session)
    for epoch in (1, 2):
        site.point(lease, epoch)
    with site.follow(session) as reader:
        got = [*reader.until("point"), *reader.until("point")]
    assert [event.kind for event in got] == ["session", "point", "point"]

    for epoch in (3, 4):
        site.point(lease, epoch)
    with site.follow(session, got[-1].id) as reader:
        more = [*reader.until("point"), *reader.until("point")]
    assert [(event.kind, event.data["epoch"]) for event in more] == [("point", 3), ("point", 4)]

    with site.follow(session, more[0].id) as reader:  # the fourth was on its way
        assert reader.until("point")[0].data["epoch"] == 4
        site.sessions.finish(lease, SessionState.STOPPED, message="It was stopped.")
        assert [event.kind for event in reader.rest()] == ["end"]


@pytest.mark.parametrize("event_id", ["", "x", "1-2", "-1-2-0123456789ab", "1-2-" + "z" * 12, "~"])
def test_an_id_that_is_not_ours_begins_anew(site: Site, event_id: str) -> None:
    session = site.request()
    site.point(site.claim(session), 1)
    with site.follow(session, event_id) as reader:
        assert [event.kind for event in reader.until("point")] == ["session", "point"]


def test_epochs_that_are_made_again_from_a_checkpoint_are_sent_again(site: Site) -> None:
    session = site.request()
    lease = site.claim(session)
    for epoch in (1, 2, 3):
        site.point(lease, epoch, loss=1.0)
    with site.follow(session) as reader:
        got = [reader.until("point")[-1] for _ in range(3)]
        site.sessions.heartbeat(lease, 0)  # its trainer dies
        again = site.claim(session)
        reader.until("session")
        for epoch in (2, 3, 4):  # quicker than a listener can look
            site.point(again, epoch, loss=0.25)
        points = [reader.until("point")[-1].data for _ in range(3)]
        assert [(point["epoch"], point["loss"]) for point in points] == [
            (2, 0.25),
            (3, 0.25),
            (4, 0.25),
        ]
    with site.follow(session, got[-1].id) as reader:  # it has the old ones only
        points = [reader.until("point")[-1].data for _ in range(4)]
        assert [point["loss"] for point in points] == [1.0, 0.25, 0.25, 0.25]


def test_the_end_of_a_session_that_has_ended_comes_at_once(site: Site) -> None:
    session = site.request()
    lease = site.claim(session)
    site.point(lease, 1)
    site.sessions.finish(lease, SessionState.FAILED, message="The disk is full.")
    with site.follow(session) as reader:
        events = reader.rest()
    assert [event.kind for event in events] == ["point", "end"]
    assert events[-1].data["message"] == "The disk is full."


def test_a_browser_that_comes_back_after_the_end_is_told_to_stay_away(site: Site) -> None:
    session = site.request()
    site.sessions.request_stop(session.id)
    with site.follow(session) as reader:
        (end,) = reader.rest()
    with site.follow(session, end.id) as reader:
        assert reader.answer.status_code == 204

    site.sessions.resume(session.id)
    with site.follow(session, end.id) as reader:
        assert reader.until("session")[0].data["state"] == "queued"
    wait_until(lambda: site.events.listeners == 0)


def test_silence_is_broken_by_a_comment(make_site: MakeSite) -> None:
    site = make_site(ping_s=0.1)
    session = site.request()
    with site.follow(session) as reader:
        reader.until("session")
        time.sleep(0.5)
        site.claim(session)
        reader.until("session")
    assert 2 <= reader.comments.count(": ping") <= 6


def test_a_listener_that_goes_makes_room_for_another(make_site: MakeSite) -> None:
    site = make_site(most=2)
    session = site.request()
    with site.follow(session) as first, site.follow(session) as second:
        first.until("session")
        second.until("session")
        assert site.events.listeners == 2
        with site.follow(session) as third:
            assert third.answer.status_code == 503
        assert site.events.listeners == 2
    wait_until(lambda: site.events.listeners == 0)
    with site.follow(session) as reader:
        reader.until("session")


def test_an_unknown_session_takes_no_room(make_site: MakeSite) -> None:
    site = make_site(most=1)
    for _ in range(3):
        assert httpx.get(f"{site.address}/{'0' * 32}").status_code == 404
    assert site.events.listeners == 0


def test_many_listeners_do_not_keep_others_waiting(make_site: MakeSite) -> None:
    site = make_site(most=30)
    session = site.request()
    with ExitStack() as stack:
        readers = [stack.enter_context(site.follow(session)) for _ in range(30)]
        for reader in readers:
            reader.until("session")
        assert site.events.listeners == 30
        begun = time.monotonic()
        assert httpx.get(f"{site.address}/{'0' * 32}").status_code == 503
        assert time.monotonic() - begun < 2
        lease = site.claim(session)
        site.point(lease, 1)
        for reader in readers:
            assert reader.until("point")[-1].data["epoch"] == 1
    wait_until(lambda: site.events.listeners == 0)


def test_records_that_are_away_for_a_moment_are_waited_for(site: Site) -> None:
    session = site.request()
    with site.follow(session) as reader:
        reader.until("session")
        site.desk.away = True
        lease = site.claim(session)
        site.point(lease, 1)
        time.sleep(0.2)
        site.desk.away = False
        assert [event.kind for event in reader.until("point")] == ["session", "point"]


def test_a_session_that_is_deleted_meanwhile_ends_its_stream(site: Site) -> None:
    session = site.request()
    with site.follow(session) as reader:
        reader.until("session")
        site.desk.away = True  # the listener misses its end
        time.sleep(0.1)
        site.sessions.request_stop(session.id)
        site.sessions.delete(session.id)
        site.desk.away = False
        (end,) = reader.rest()
    assert (end.kind, end.data["id"]) == ("end", session.id)


def test_streams_end_when_the_process_is_to_end_and_after_a_while(make_site: MakeSite) -> None:
    for options in ({}, {"longest_s": 0.3}):
        site = make_site(**options)
        session = site.request()
        with site.follow(session) as reader:
            reader.until("session")
            if not options:
                site.stopping.set()
            assert reader.rest() == []
        site.sessions.request_stop(session.id)


def test_the_applications_own_route_streams(backend: Backend) -> None:
    backend.setup("1.2")
    sessions = Sessions(backend.own.projects._database)
    with uvicorn_server(backend.app) as address:
        api = httpx.Client(base_url=f"{address}/api/v1", timeout=WITHIN_S)
        (started,) = api.post("/sessions", json={"project": 1}).json()["items"]
        with api.stream("GET", f"/sessions/{started['id'][:8]}/events") as answer:
            reader = Reader(answer)
            assert reader.until("session")[0].data["id"] == started["id"]
            sessions.request_stop(started["id"])
            end = reader.until("end")[-1]
        assert end.data["state"] == "stopped"
        assert answer.headers["x-request-id"]
        gone = api.get(f"/sessions/{started['id']}/events", headers={"Last-Event-ID": end.id})
        assert (gone.status_code, gone.content) == (204, b"")
        unknown = api.get(f"/sessions/{'0' * 32}/events")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "request.not_found")
