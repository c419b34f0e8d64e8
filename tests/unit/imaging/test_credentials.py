"""Legacy tokens go as they are, personal access tokens are exchanged."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_backend.domain import LabelStudioAccess, is_personal_access_token
from ml_backend.errors import ImageFetchError
from ml_backend.imaging.addresses import AddressGuard
from ml_backend.imaging.credentials import Credentials, refusal
from ml_backend.imaging.transport import Deadline, GuardedClient
from tests.image_server import Asked, ImageServer, Reply
from tests.unit.imaging.conftest import MakeFetcher

LEGACY = "0123456789abcdef0123456789abcdef01234567"


def jwt(**claims: object) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in ({}, claims)]
    return b".".join([*parts, b"signature"]).decode().replace("=", "")


PAT = jwt(token_type="refresh", exp=4_000_000_000)


class ExchangingLabelStudio:
    """Exchanges the personal access token and serves images to the newest access token."""

    def __init__(self, server: ImageServer) -> None:
        self.server = server
        self.exchanged: list[str] = []
        self.life_s = 300
        server.routes["/api/token/refresh/"] = self._exchange
        server.routes["/data/upload/1/a.png"] = self._image
        server.routes["/data/upload/1/b.png"] = self._image

    def access(self) -> LabelStudioAccess:
        return LabelStudioAccess(origin=self.server.origin, token=PAT)

    def _exchange(self, asked: Asked) -> Reply:
        if json.loads(asked.body) != {"refresh": PAT}:
            return Reply(status=401)
        now = 1_800_000_000
        self.exchanged.append(jwt(number=len(self.exchanged), iat=now, exp=now + self.life_s))
        return Reply(body=json.dumps({"access": self.exchanged[-1]}).encode())

    def _image(self, asked: Asked) -> Reply:
        good = self.exchanged and asked.headers.get("authorization") == (
            f"Bearer {self.exchanged[-1]}"
        )
        return Reply(body=b"pixels") if good else Reply(status=401)


@pytest.fixture
def exchanging(label_studio: ImageServer) -> Iterator[ExchangingLabelStudio]:
    return ExchangingLabelStudio(label_studio)


def test_the_kinds_of_token_are_told_apart() -> None:
    assert is_personal_access_token(PAT)
    assert not is_personal_access_token(LEGACY)


def test_a_personal_access_token_is_exchanged_once_for_many_images(
    exchanging: ExchangingLabelStudio, make_fetcher: MakeFetcher
) -> None:
    fetcher = make_fetcher()

    for name in ("a", "b"):
        fetcher.fetch(f"/data/upload/1/{name}.png", task_id=1, access=exchanging.access())

    assert len(exchanging.exchanged) == 1
    assert all(PAT not in str(asked.headers) for asked in exchanging.server.asked)


def test_an_access_token_that_was_refused_is_renewed_once(
    exchanging: ExchangingLabelStudio, make_fetcher: MakeFetcher
) -> None:
    fetcher = make_fetcher()
    fetcher.fetch("/data/upload/1/a.png", task_id=1, access=exchanging.access())
    exchanging.exchanged.append("an access token that only the server knows")

    fetcher.fetch("/data/upload/1/b.png", task_id=1, access=exchanging.access())

    assert len(exchanging.exchanged) == 3


def test_a_token_that_stays_refused_is_not_exchanged_for_ever(
    exchanging: ExchangingLabelStudio, make_fetcher: MakeFetcher
) -> None:
    exchanging.server.routes["/data/upload/1/a.png"] = Reply(status=401)

    with pytest.raises(ImageFetchError, match="personal access token"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=exchanging.access())

    assert len(exchanging.exchanged) == 2


def test_a_revoked_token_says_what_to_do(
    exchanging: ExchangingLabelStudio, make_fetcher: MakeFetcher
) -> None:
    access = LabelStudioAccess(origin=exchanging.server.origin, token=jwt(other=True))

    with pytest.raises(ImageFetchError, match="Account & Settings"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=access)


@pytest.mark.parametrize(
    "reply", [Reply(status=404), Reply(body=b"<html>"), Reply(body=b"{}"), Reply(body=b"[1]")]
)
def test_an_exchange_that_answers_nonsense_names_the_setting(
    reply: Reply, exchanging: ExchangingLabelStudio, make_fetcher: MakeFetcher
) -> None:
    exchanging.server.routes["/api/token/refresh/"] = reply

    with pytest.raises(ImageFetchError, match="LABEL_STUDIO_URL"):
        make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=exchanging.access())


def test_an_access_token_is_renewed_before_it_ends(exchanging: ExchangingLabelStudio) -> None:
    now = [0.0]
    credentials = Credentials(GuardedClient(AddressGuard()), clock=lambda: now[0])
    deadline = Deadline(10)

    headers = []
    for now[0] in (0.0, 239.0, 241.0):
        headers.append(credentials.header(exchanging.access(), deadline=deadline))

    assert headers[0] == headers[1] == f"Bearer {exchanging.exchanged[0]}"
    assert headers[2] == f"Bearer {exchanging.exchanged[1]}"


def test_many_threads_wait_for_one_exchange(exchanging: ExchangingLabelStudio) -> None:
    credentials = Credentials(GuardedClient(AddressGuard()))
    deadline = Deadline(10)

    with ThreadPoolExecutor(8) as pool:
        headers = set(
            pool.map(lambda _: credentials.header(exchanging.access(), deadline=deadline), range(8))
        )

    assert len(headers) == 1
    assert len(exchanging.exchanged) == 1


def test_a_legacy_token_is_sent_as_it_is() -> None:
    access = LabelStudioAccess(origin="http://label-studio.test", token=f" {LEGACY}\n")

    header = Credentials(GuardedClient(AddressGuard())).header(access, deadline=Deadline(1))

    assert header == f"Token {LEGACY}"


def test_without_a_token_nothing_is_sent() -> None:
    access = LabelStudioAccess(origin="http://label-studio.test")

    header = Credentials(GuardedClient(AddressGuard())).header(access, deadline=Deadline(1))

    assert header is None


@pytest.mark.parametrize(
    ("token", "status", "sentence"),
    [
        (None, 401, "wants to know who"),
        (LEGACY, 401, "enable legacy tokens under Organization > API tokens"),
        (PAT, 401, "refuses the personal access token"),
        (PAT, 403, "may not see this project"),
    ],
)
def test_each_refusal_says_what_to_do(token: str | None, status: int, sentence: str) -> None:
    text = refusal(LabelStudioAccess(origin="http://label-studio.test", token=token), status)

    assert sentence in text


def test_tokens_are_in_no_log_and_no_representation(
    exchanging: ExchangingLabelStudio,
    make_fetcher: MakeFetcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    make_fetcher().fetch("/data/upload/1/a.png", task_id=1, access=exchanging.access())

    shown = caplog.text + repr(exchanging.access())
    assert PAT not in shown
    assert exchanging.exchanged[0] not in shown
