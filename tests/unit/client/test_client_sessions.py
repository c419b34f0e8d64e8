"""`client.sessions`, `client.datasets`: starting, finding and following trainings."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.responses import Response, StreamingResponse

from ml_backend.client import Client, EventKind, Point, Retries, SessionEvent
from ml_backend.errors import BadRequest, Conflict, NotFound, ServerError, ServerUnreachable
from ml_backend.learning import SessionState
from tests.scripted_api import Answer, Asked, ScriptedApi, answered, refused
from tests.unit.client.conftest import QUICK, TOKEN
from tests.uvicorn_server import uvicorn_server

SESSIONS = "/api/v1/sessions"
PROJECT = {"key": "http://ls#3.9", "id": 3, "created_at": None, "label_studio": "http://ls"}


def session(state: str = "running", **more: Any) -> dict[str, Any]:
    """Return a session as the server shows it."""
    return {
        "id": "3f2a91c0",
        "project": PROJECT,
        "dataset": None,
        "state": state,
        "currently_training": state == "running",
        "stop_requested": False,
        "trigger": "person",
        "owner": "microscope",
        "controls": ["cells"],
        "parameters": {"n_epochs": 3},
        "created_at": "2026-11-20T23:01:21.125+00:00",
        "started_training_at": None,
        "finished_training_at": None,
        "heartbeat_at": None,
        "attempts": 1,
        "progress": {"epoch": 1, "epochs": 3},
        "message": None,
        "version": None,
        "report": {},
        "of_a_newer_server": [1, 2],
        **more,
    }


# Starting


def test_a_project_is_trained(client: Client, api: ScriptedApi) -> None:
    api.on(f"POST {SESSIONS}", answered({"items": [session("queued")], "next": None}, 202))

    (begun,) = client.sessions.start(project=3, n_epochs=40, label="cells", lora_rank=None)

    (asked,) = api.asked
    assert asked.content == {"project": 3, "n_epochs": 40, "label": "cells"}
    assert begun.state is SessionState.QUEUED
    assert not begun.has_ended
    assert begun.created_at == datetime(2026, 11, 20, 23, 1, 21, 125000, tzinfo=UTC)
    assert begun.project is not None
    assert begun.project.id == 3


def test_a_dataset_is_trained_with_its_layout(client: Client, api: ScriptedApi) -> None:
    api.on(f"POST {SESSIONS}", answered({"items": [session()], "next": None}, 202))

    client.sessions.start(
        dataset=Path("/data/cells"),
        layout={"train_images": "images/*.tif", "train_annotations": "masks/*.tif"},
        model="nuclei-1",
        seed=0,
    )

    assert api.asked[0].content == {
        "artifact": "/data/cells",
        "train_images": "images/*.tif",
        "train_annotations": "masks/*.tif",
        "model": "nuclei-1",
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, "either a project or a dataset"),
        ({"project": 3, "dataset": "/data"}, "either a project or a dataset"),
        ({"project": 3, "layout": {"train_images": "a/"}}, "Only a dataset"),
        ({"project": 3, "epochs": 4}, "There is no option 'epochs'; there are n_samples"),
        ({"dataset": "/d", "layout": {"images": "a/"}}, "There is no option 'images'"),
    ],
)
def test_what_cannot_be_started_is_not_sent(
    client: Client, api: ScriptedApi, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason):
        client.sessions.start(**arguments)

    assert api.asked == []


def test_a_start_is_sent_again_with_the_same_key(client: Client, api: ScriptedApi) -> None:
    page = {"items": [session()], "next": None}
    api.on(
        f"POST {SESSIONS}",
        refused(503, "store.failed"),
        refused(409, "request.in_progress", retry_after="0"),
        answered(page, 202),
    )

    client.sessions.start(project=3)
    client.sessions.start(project=3)
    client.sessions.start(project=3, idempotency_key="mine")

    keys = [asked.headers["idempotency-key"] for asked in api.asked]
    assert len(keys) == 5
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys)) == 3
    assert keys[4] == "mine"


def test_a_conflict_is_not_sent_again(client: Client, api: ScriptedApi) -> None:
    api.on(f"POST {SESSIONS}/ab/restart", refused(409, "request.conflict"))

    with pytest.raises(Conflict):
        client.sessions.restart("ab", n_epochs=2)

    (asked,) = api.asked
    assert asked.content == {"n_epochs": 2}
    assert asked.headers["idempotency-key"]


# Finding


def test_lists_are_asked_for_page_by_page(client: Client, api: ScriptedApi) -> None:
    api.on(
        f"GET {SESSIONS}",
        answered({"items": [session(id="a"), session(id="b")], "next": "b"}),
        answered({"items": [session(id="c")], "next": None}),
    )

    found = client.sessions.find(
        status_types=["failed", "unknown"], datasets=["d 1"], labels=["x", "y"], page_size=2
    )

    assert next(found).id == "a"
    assert len(api.asked) == 1, "the next page is asked for when it is needed"
    assert [one.id for one in found] == ["b", "c"]
    filters = [("status_types", "failed"), ("status_types", "unknown")]
    filters += [("dataset", "d 1"), ("label", "x"), ("label", "y"), ("limit", "2")]
    assert sorted(api.asked[0].query) == sorted(filters)
    assert ("after", "b") in api.asked[1].query


def test_a_list_that_does_not_get_on_ends(client: Client, api: ScriptedApi) -> None:
    api.on(f"GET {SESSIONS}", answered({"items": [session()], "next": "a"}))

    with pytest.raises(ServerError, match="does not get on"):
        list(client.sessions.find())


def test_datasets_and_their_models_are_listed(client: Client, api: ScriptedApi) -> None:
    dataset = {
        "name": "cells",
        "source": {"root": "/data/cells"},
        "created_at": "2026-11-20T23:01:21.000+00:00",
        "sessions": 2,
        "models": 1,
    }
    model = {"name": "nuclei-1-cells-v1", "kind": "candidate", "lineage": ["nuclei-1"]}
    api.on("GET /api/v1/datasets", answered({"items": [dataset], "next": None}))
    api.on("GET /api/v1/datasets/cells/models", answered({"items": [model], "next": None}))

    (found,) = client.datasets.find()
    (trained,) = client.datasets.models("cells")

    assert (found.name, found.source, found.models) == ("cells", {"root": "/data/cells"}, 1)
    assert (trained.name, trained.lineage) == ("nuclei-1-cells-v1", ("nuclei-1",))


# Looking


def test_curves_are_points_in_the_order_of_their_epochs(client: Client, api: ScriptedApi) -> None:
    curves = {"10": {"loss": 0.1, "lr": 1e-4, "step": 40}, "2": {"loss": 0.3, "ap50": 0.5}}
    api.on(f"GET {SESSIONS}/ab/curves", answered({}), answered(curves))

    assert client.sessions.curves("ab") == ()
    assert client.sessions.curves("ab") == (
        Point(epoch=2, loss=0.3, ap50=0.5),
        Point(epoch=10, loss=0.1, lr=1e-4, step=40),
    )


def test_debugging_and_the_manifest_are_told(client: Client, api: ScriptedApi) -> None:
    debug = {
        "id": "ab",
        "state": "queued",
        "reason": "No trainer runs.",
        "queue_position": 2,
        "lease": {"number": 0, "owner": None, "until": None, "seconds_left": None},
        "heartbeat_age_s": None,
        "attempts": 0,
        "next_step": "Start one.",
    }
    api.on(f"GET {SESSIONS}/ab/debug", answered(debug))
    api.on(f"GET {SESSIONS}/ab/manifest", answered({"tasks": [1, 2]}))

    told = client.sessions.debug("ab")

    assert (told.reason, told.queue_position, told.next_step) == (
        "No trainer runs.",
        2,
        "Start one.",
    )
    assert client.sessions.manifest("ab") == {"tasks": [1, 2]}


def test_the_picture_is_written(client: Client, api: ScriptedApi, tmp_path: Path) -> None:
    api.on(f"GET {SESSIONS}/ab/curves.png", lambda _: Response(b"\x89PNG", media_type="image/png"))

    written = client.sessions.picture("ab", tmp_path)

    assert written == tmp_path / "curves.png"
    assert written.read_bytes() == b"\x89PNG"


def test_stop_resume_and_delete_are_asked_for(client: Client, api: ScriptedApi) -> None:
    api.on(f"POST {SESSIONS}/ab/stop", answered(session("running", stop_requested=True), 202))
    api.on(f"POST {SESSIONS}/ab/resume", answered(session("queued"), 202))
    api.on(f"DELETE {SESSIONS}/ab", lambda _: Response(status_code=204))

    assert client.sessions.stop("ab").stop_requested
    assert client.sessions.resume("ab").state is SessionState.QUEUED
    client.sessions.delete("ab")

    assert [asked.method for asked in api.asked] == ["POST", "POST", "DELETE"]


# Following


def sent(number: int, kind: str, content: Any) -> bytes:
    """Return one server-sent event."""
    return f"id: {number}\nevent: {kind}\ndata: {orjson.dumps(content).decode()}\n\n".encode()


EVENTS = [
    sent(1, "session", session("running")),
    b": ping\n\n",
    sent(2, "point", {"epoch": 1, "loss": 0.5}),
    sent(3, "of.a.newer.server", {}),
    sent(4, "point", {"epoch": 2, "loss": 0.25}),
    sent(5, "end", session("completed", version="nuclei-1-p3-v1")),
]


def stream(*pieces: bytes, breaks: bool = False) -> Answer:
    """Return an answer of these pieces, which ends in the middle if it breaks."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if breaks:
            raise RuntimeError("the connection breaks here, on purpose")

    return lambda _: StreamingResponse(body(), media_type="text/event-stream")


def kinds(events: Iterator[SessionEvent]) -> list[tuple[str, int | None]]:
    """Return of each event its kind and epoch."""
    return [(event.kind, event.point.epoch if event.point else None) for event in events]


ALL = [("session", None), ("point", 1), ("point", 2), ("end", None)]


def test_a_session_is_followed_to_its_end(client: Client, api: ScriptedApi) -> None:
    api.on(f"GET {SESSIONS}/ab/events", stream(*EVENTS))

    events = list(client.sessions.events("ab"))

    assert kinds(iter(events)) == ALL
    assert events[-1].session is not None
    assert events[-1].session.version == "nuclei-1-p3-v1"
    assert events[-1].kind is EventKind.END
    assert "last-event-id" not in api.asked[0].headers
    assert api.asked[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize("cut", range(len(b"".join(EVENTS[:3])) + 1)[::60])
def test_a_connection_that_ends_anywhere_is_made_again_where_it_was(
    client: Client, api: ScriptedApi, breaks: bool, cut: int
) -> None:
    def rest(asked: Asked) -> Response:
        last = int(asked.headers.get("last-event-id", 0))
        left = [
            event for number, event in zip((1, 1, 2, 3, 4, 5), EVENTS, strict=True) if number > last
        ]
        return stream(*left)(asked)

    api.on(f"GET {SESSIONS}/ab/events", stream(b"".join(EVENTS)[:cut], breaks=breaks), rest)

    assert kinds(client.sessions.events("ab")) == ALL
    assert len(api.asked) == 2


def test_following_goes_on_after_an_event_that_is_known(client: Client, api: ScriptedApi) -> None:
    api.on(f"GET {SESSIONS}/ab/events", stream(EVENTS[-1]))

    list(client.sessions.events("ab", after="4"))

    assert api.asked[0].headers["last-event-id"] == "4"


def test_who_knows_the_end_is_told_nothing_more(client: Client, api: ScriptedApi) -> None:
    api.on(f"GET {SESSIONS}/ab/events", lambda _: Response(status_code=204))

    assert list(client.sessions.events("ab", after="5")) == []


def test_a_server_that_follows_too_many_is_asked_for_the_session_itself(
    api: ScriptedApi, url: str
) -> None:
    api.on(f"GET {SESSIONS}/ab/events", refused(503, "backend.busy"), stream(*EVENTS))
    api.on(f"GET {SESSIONS}/ab", answered(session("completed")))

    with Client(url, retries=QUICK) as client:
        assert client.sessions.wait("ab", patience_s=0.0).has_ended


def test_a_server_that_starts_again_is_waited_for(
    api: ScriptedApi, url: str, free_port: int
) -> None:
    api.on(f"GET {SESSIONS}/ab/events", stream(*EVENTS[:3]), stream(*EVENTS[4:]))
    heard: list[str] = []

    with uvicorn_server(api, port=free_port) as address:
        client = Client(address, TOKEN, retries=QUICK)
        events = client.sessions.events("ab", patience_s=30)
        for event in events:
            heard.append(event.kind)
            if event.point is not None:
                break
    with uvicorn_server(api, port=free_port):
        heard += [event.kind for event in events]
    client.close()

    assert heard == ["session", "point", "point", "end"]


@pytest.fixture
def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_patience_has_an_end(free_port: int) -> None:
    with (
        Client(f"http://127.0.0.1:{free_port}", retries=Retries(times=0)) as client,
        pytest.raises(ServerUnreachable, match="Nobody answers"),
    ):
        list(client.sessions.events("ab", patience_s=0.1))


def test_following_what_is_not_there_ends_at_once(client: Client) -> None:
    with pytest.raises(NotFound):
        list(client.sessions.events("ab"))


def test_leaving_early_leaves_the_connection(client: Client, api: ScriptedApi) -> None:
    is_left = []

    async def body() -> AsyncIterator[bytes]:
        import asyncio

        try:
            while True:
                yield EVENTS[0]
                await asyncio.sleep(0.01)
        finally:
            is_left.append(True)

    api.on(f"GET {SESSIONS}/ab/events", lambda _: StreamingResponse(body()))
    api.on("GET /metrics", answered({}))

    events = client.sessions.events("ab")
    next(events)
    events.close()  # type: ignore[attr-defined]  # a generator's

    wait_for(lambda: bool(is_left))
    assert client.metrics() == "{}"


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    import time

    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_waiting_returns_the_ended_session_and_tells_what_happens(
    client: Client, api: ScriptedApi
) -> None:
    api.on(f"GET {SESSIONS}/ab/events", stream(*EVENTS))
    api.on(f"GET {SESSIONS}/ab", answered(session("completed", message="Promoted.")))
    heard: list[SessionEvent] = []

    ended = client.sessions.wait("ab", on_event=heard.append)

    assert (ended.state, ended.message) == (SessionState.COMPLETED, "Promoted.")
    assert kinds(iter(heard)) == ALL


def test_waiting_has_an_end(client: Client, api: ScriptedApi) -> None:
    async def body() -> AsyncIterator[bytes]:
        import asyncio

        while True:
            yield b": ping\n\n"
            await asyncio.sleep(0.02)

    api.on(f"GET {SESSIONS}/ab/events", lambda _: StreamingResponse(body()))

    with pytest.raises(TimeoutError, match=r"not ended within 0\.2 s"):
        client.sessions.wait("ab", timeout_s=0.2)
