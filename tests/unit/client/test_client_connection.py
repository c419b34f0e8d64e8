"""What every call has in common: proofs, errors, retries, bounds."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.responses import Response, StreamingResponse

from ml_backend.callers import Caller, Role
from ml_backend.client import Client, Retries
from ml_backend.client.address import parse_address
from ml_backend.client.call import Call
from ml_backend.client.connection import Connection
from ml_backend.client.retries import retry_after_s
from ml_backend.errors import (
    BackendError,
    BadRequest,
    Conflict,
    EngineUnavailable,
    Forbidden,
    ModelNotFound,
    NotFound,
    ServerError,
    ServerUnreachable,
    SettingsError,
    Unauthorized,
)
from tests.scripted_api import ScriptedApi, answered, refused
from tests.unit.client.conftest import QUICK, TOKEN
from tests.uvicorn_server import uvicorn_server

WHOAMI = "GET /api/v1/whoami"
LOAD = "GET /api/v1/load"
LOADED = {
    "load": 0.5,
    "queued": 1,
    "running": 1,
    "slots": 2,
    "engine": {"device": "cpu", "depth": 1, "slots": 4},
}


# Who asks


def test_a_token_travels_in_the_header_and_nowhere_else(client: Client, api: ScriptedApi) -> None:
    api.on(WHOAMI, answered({"name": "microscope", "role": "train", "since": 3}))

    caller = client.whoami()

    (asked,) = api.asked
    assert caller == Caller(name="microscope", role=Role.TRAIN)
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in asked.path + str(asked.query)


def test_a_token_is_shown_nowhere(client: Client, api: ScriptedApi) -> None:
    api.on(WHOAMI, refused(401, "request.unauthorized", "The token is not valid."))

    with pytest.raises(Unauthorized) as caught:
        client.whoami()

    shown = [repr(client), str(caught.value), repr(vars(caught.value))]
    shown += [repr(value) for value in vars(client).values()]
    assert not any("thesecretpart" in text for text in shown)


@pytest.mark.parametrize("way", ["basic_auth", "address"])
def test_user_and_password_are_sent_as_basic(api: ScriptedApi, url: str, way: str) -> None:
    api.on(LOAD, answered(LOADED))
    host = url.removeprefix("http://")
    client = (
        Client(url, basic_auth=("lab", "pass:word"))
        if way == "basic_auth"
        else Client(f"http://lab:pass%3Aword@{host}")
    )

    with client:
        client.load()

    kind, _, encoded = api.asked[0].headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(encoded)) == ("Basic", b"lab:pass:word")
    assert "word" not in repr(client)
    assert client.url == url


@pytest.mark.parametrize(
    "token", ["", "  ", "two words", "mlb_1_\N{LATIN SMALL LETTER E WITH ACUTE}", "a\nb"]
)
def test_what_cannot_be_a_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(BadRequest, match="ml-backend tokens create") as caught:
        Client("http://localhost:9090", token)

    assert not token.strip() or token not in str(caught.value)


def test_two_proofs_are_refused() -> None:
    with pytest.raises(BadRequest, match="not both"):
        Client("http://localhost:9090", TOKEN, basic_auth=("a", "b"))


# Where it asks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:9090",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://h/?a=1",
        "http://[",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="http://localhost:9090"):
        Client(text)


@pytest.mark.parametrize(
    ("text", "url", "is_here"),
    [
        ("http://localhost:9090/", "http://localhost:9090", True),
        ("https://lab.example/backend/", "https://lab.example/backend", False),
        ("http://[::1]:9090", "http://[::1]:9090", True),
        ("http://127.8.0.1", "http://127.8.0.1", True),
        (" http://user@lab.example ", "http://lab.example", False),
    ],
)
def test_addresses_are_read_as_people_write_them(text: str, url: str, is_here: bool) -> None:
    address = parse_address(text)

    assert (address.url, address.is_here) == (url, is_here)


def test_a_backend_behind_a_prefix_is_asked_there(api: ScriptedApi, url: str) -> None:
    api.on("GET /lab/backend/api/v1/load", answered(LOADED))

    with Client(f"{url}/lab/backend/") as client:
        assert client.load().slots == 2


def test_the_environment_names_the_backend(
    api: ScriptedApi, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.on(LOAD, answered(LOADED))
    monkeypatch.setenv("ML_BACKEND_URL", url)
    monkeypatch.setenv("ML_BACKEND_TOKEN", TOKEN)
    monkeypatch.setenv("PORT", "not for clients")

    with Client.from_environment(timeout_s=5.0) as client:
        assert client.load().queued == 1

    assert api.asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_an_environment_without_it_means_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ML_BACKEND_URL", raising=False)
    monkeypatch.delenv("ML_BACKEND_TOKEN", raising=False)

    with Client.from_environment() as client:
        assert client.url == "http://localhost:9090"


def test_a_wrong_address_in_the_environment_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_BACKEND_URL", "localhost")

    with pytest.raises(SettingsError, match="ML_BACKEND_URL"):
        Client.from_environment()


# What is refused


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "request.not_found", NotFound),
        (409, "request.conflict", Conflict),
        (403, "request.forbidden", Forbidden),
        (422, "model.not_found", ModelNotFound),
        (422, "of.a.newer.server", BadRequest),
        (404, "of.a.newer.server", NotFound),
        (500, "of.a.newer.server", ServerError),
        (500, "backend", BackendError),
    ],
)
def test_a_refusal_is_our_error_by_its_code(
    client: Client, api: ScriptedApi, status: int, code: str, kind: type[BackendError]
) -> None:
    api.on(LOAD, refused(status, code, "There is no such thing."))

    with pytest.raises(BackendError) as caught:
        client.load()

    assert type(caught.value) is kind
    assert caught.value.message == "There is no such thing."
    assert "0f6c1e2d" in caught.value.__notes__[0]
    assert len(api.asked) == 1, "asking again would not help"


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        (Response("<html>Nginx</html>", 404, media_type="text/html"), NotFound, "404"),
        (Response("Bad gateway", 502), ServerError, "(Bad gateway)"),
        (Response("<html>It works!</html>", 200), ServerError, "not as this version"),
        (Response("", 200), ServerError, "not as this version"),
        (Response(b"\xff\xfe", 200), ServerError, "not as this version"),
        (Response('{"load": "high"}', 200), ServerError, "not as this version"),
        (
            Response("", 307, headers={"location": "https://a.example/x?k=1"}),
            ServerError,
            "a.example",
        ),
    ],
)
def test_what_is_no_backend_is_a_sentence(
    client: Client, api: ScriptedApi, answer: Response, kind: type[BackendError], part: str
) -> None:
    api.on(LOAD, lambda _: answer)

    with pytest.raises(kind, match=re.escape(part)) as caught:
        client.load()

    assert "<html>" not in caught.value.message


def test_a_route_that_is_not_there_is_a_sentence(client: Client, api: ScriptedApi) -> None:
    api.on(LOAD, refused(404, "http.404", "Not Found"))

    with pytest.raises(NotFound, match="404 for /api/v1/load; it may be of another version"):
        client.load()


def test_a_token_does_not_follow_a_redirect(client: Client, api: ScriptedApi, url: str) -> None:
    elsewhere = url.replace("127.0.0.1", "localhost")
    api.on(LOAD, lambda _: Response("", 302, headers={"location": f"{elsewhere}/stolen"}))

    with pytest.raises(ServerError, match="sends us on"):
        client.load()

    assert [asked.path for asked in api.asked] == ["/api/v1/load"]


def test_an_endless_answer_is_given_up(api: ScriptedApi, url: str) -> None:
    def endless() -> object:
        while True:
            yield b" " * 65536

    api.on(LOAD, lambda _: StreamingResponse(endless()))
    connection = Connection(parse_address(url), authorization=None, timeout_s=5.0)

    with pytest.raises(ServerError, match="more than 1 MB"):
        connection.ask(Call(method="GET", path="/api/v1/load"), max_bytes=1_000_000)

    connection.close()


def test_an_endless_refusal_is_given_up(client: Client, api: ScriptedApi) -> None:
    def endless() -> object:
        while True:
            yield b" " * 65536

    api.on(LOAD, lambda _: StreamingResponse(endless(), 418))

    with pytest.raises(BadRequest, match="418"):
        client.load()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_leads_elsewhere_is_refused(
    client: Client, api: ScriptedApi, name: str
) -> None:
    with pytest.raises(BadRequest, match="is no name"):
        client.sessions.get(name)

    assert api.asked == []


def test_a_name_is_one_part_of_the_path(client: Client, api: ScriptedApi) -> None:
    with pytest.raises(NotFound):
        client.models.get("a b/../c?d=\N{LATIN SMALL LETTER E WITH ACUTE}")

    assert api.asked[0].path == "/api/v1/models/a b/../c?d=\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert api.asked[0].query == []


# What cannot be reached


def test_nobody_there_is_a_sentence_with_the_address() -> None:
    sentence = r"http://127\.0\.0\.1:9; start the backend there \(`ml-backend serve`\)"

    with (
        Client("http://127.0.0.1:9", retries=QUICK) as client,
        pytest.raises(ServerUnreachable, match=sentence),
    ):
        client.load()


def test_a_name_that_nobody_has_is_not_tried_again() -> None:
    started = time.monotonic()

    with (
        Client("http://nobody.invalid", retries=Retries(times=3, first_s=30)) as client,
        pytest.raises(ServerUnreachable, match="no machine of the name"),
    ):
        client.load()

    assert time.monotonic() - started < 20


def test_silence_is_a_sentence(api: ScriptedApi, url: str) -> None:
    async def silent(scope: object, receive: object, send: object) -> None:
        import asyncio

        await asyncio.sleep(3)

    with (
        uvicorn_server(silent) as address,
        Client(address, timeout_s=0.2, retries=Retries(times=0)) as client,
        pytest.raises(ServerUnreachable, match=r"sent nothing for 0\.2 s"),
    ):
        client.load()


def test_a_server_without_tls_is_a_sentence(url: str) -> None:
    with (
        Client(url.replace("http://", "https://"), retries=QUICK) as client,
        pytest.raises(ServerUnreachable, match="begins with http://"),
    ):
        client.load()


def test_a_certificate_that_nobody_trusts_is_explained_and_can_be_given(
    api: ScriptedApi, tmp_path: Path
) -> None:
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("the program openssl is not installed here")
    api.on(LOAD, answered(LOADED))
    certificate = tmp_path / "cert.pem"

    with uvicorn_server(api, certificate=(certificate, tmp_path / "key.pem")) as url:
        with (
            Client(url, retries=QUICK) as client,
            pytest.raises(ServerUnreachable, match="certificates="),
        ):
            client.load()
        with Client(url, retries=QUICK, certificates=certificate) as client:
            assert client.load().load == 0.5


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("nothing")

    for path in (tmp_path / "not.pem", tmp_path / "missing.pem"):
        with pytest.raises(BadRequest, match="PEM"):
            Client("https://lab.example", certificates=path)


# Asking again


def test_what_passes_is_asked_again(client: Client, api: ScriptedApi) -> None:
    api.on(
        LOAD,
        refused(503, "engine.unavailable"),
        lambda _: Response("busy", 429, headers={"retry-after": "0"}),
        answered(LOADED),
    )

    assert client.load().running == 1
    assert len(api.asked) == 3


def test_asking_again_has_an_end(client: Client, api: ScriptedApi) -> None:
    api.on(LOAD, refused(503, "engine.unavailable", "It is starting."))

    with pytest.raises(EngineUnavailable, match="It is starting"):
        client.load()

    assert len(api.asked) == 1 + QUICK.times


def test_what_changes_something_is_not_sent_again(client: Client, api: ScriptedApi) -> None:
    api.on("POST /api/v1/sessions/ab/stop", refused(503, "store.failed"))
    api.on("DELETE /api/v1/sessions/ab", refused(503, "store.failed"))

    for call in (client.sessions.stop, client.sessions.delete):
        with pytest.raises(BackendError):
            call("ab")

    assert len(api.asked) == 2


def test_it_waits_as_long_as_the_server_asks_within_bounds(api: ScriptedApi, url: str) -> None:
    waited: list[float] = []
    connection = Connection(
        parse_address(url),
        authorization=None,
        timeout_s=5.0,
        retries=Retries(times=2, first_s=0.5, longest_s=7.0),
        sleep=waited.append,
    )
    api.on(
        LOAD,
        refused(503, "engine.unavailable", retry_after="3"),
        refused(503, "engine.unavailable", retry_after="9000"),
        answered({}),
    )

    connection.ask(Call(method="GET", path="/api/v1/load", is_repeatable=True))
    connection.close()

    assert waited == [3.0, 7.0]


def test_a_connection_that_breaks_in_the_answer_is_made_again(
    client: Client, api: ScriptedApi
) -> None:
    broken = Response(b'{"load"', 200)
    broken.headers["content-length"] = "100"
    api.on(LOAD, lambda _: broken, answered(LOADED))

    assert client.load().slots == 2
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("12", 12.0),
        ("soon", None),
        ("-3", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, now=60.0) == seconds


def test_delays_grow_up_to_a_bound() -> None:
    delays = list(Retries(times=6, first_s=1.0, longest_s=5.0).delays())

    assert len(delays) == 6
    assert 0.8 <= delays[0] <= 1.2
    assert max(delays) == 5.0


# The rest of the server


def test_metrics_are_a_text(client: Client, api: ScriptedApi) -> None:
    api.on("GET /metrics", lambda _: Response("ml_backend_requests_total 3\n"))

    assert client.metrics() == "ml_backend_requests_total 3\n"


def test_the_parameters_of_trainings_are_listed(client: Client, api: ScriptedApi) -> None:
    parameter = {
        "name": "n_epochs",
        "meaning": "How often the training goes through its samples.",
        "allowed": "a whole number from 1 to 100000",
        "projects_only": False,
        "defaults": {"residual-unet": 60, "sam-vitl": "100"},
        "reference_default": 10,
        "why": "It is more.",
    }
    api.on("GET /api/v1/training-parameters", answered({"items": [parameter], "next": None}))

    (found,) = client.training_parameters()

    assert found.name == "n_epochs"
    assert found.defaults == {"residual-unet": 60, "sam-vitl": "100"}


def test_importing_the_client_loads_nothing_heavy() -> None:
    heavy = ("torch", "cellpose", "fastapi", "sqlalchemy", "scipy", "cv2", "pydantic", "skimage")
    program = (
        f"import sys, ml_backend.client\nprint([name for name in {heavy!r} if name in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
