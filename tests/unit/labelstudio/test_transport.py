"""Label Studio's refusals and silences, as sentences that say what to do."""

from __future__ import annotations

import httpx
import pytest

from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.client import LabelStudioClient
from ml_backend.labelstudio.transport import detail, failures_as_sentences, read_answer, refused

URL = "http://localhost:8080"
LEGACY = "0" * 40
PERSONAL = "head.body.signature"


@pytest.mark.parametrize(
    ("key", "status", "body", "words"),
    [
        (LEGACY, 401, {"detail": "Invalid token."}, "API Tokens Settings"),
        (PERSONAL, 401, {"detail": "Token is expired"}, "create a new one"),
        (LEGACY, 403, {"detail": "URL resolves to a reserved network address"}, "ML_BLOCK_LOCAL"),
        (LEGACY, 403, {"detail": "You do not have permission"}, "right to change the project"),
        (LEGACY, 404, {"detail": "No Project matches"}, "No Project matches"),
        (LEGACY, 500, "boom", "500: boom"),
    ],
)
def test_a_refusal_says_what_to_do(key: str, status: int, body: object, words: str) -> None:
    error = refused(URL, key, status, body)

    assert words in error.message
    assert key not in error.message
    assert error.status == status


def test_a_redirect_says_where_label_studio_really_is() -> None:
    error = refused(URL, LEGACY, 301, "", {"Location": "https://labels.example.org/"})

    assert "https://labels.example.org/" in error.message


def test_validation_errors_are_joined_and_freed_of_links() -> None:
    body = {
        "detail": "Validation error",
        "validation_errors": {"url": ["too long"], "all": ["see <a href='x'>the guide</a>"]},
    }

    assert detail(body) == "too long; see the guide"


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (httpx.ConnectError("Connection refused"), "host.docker.internal"),
        (httpx.ReadTimeout("timed out"), "did not answer in time"),
        (ValueError("no JSON"), "did not answer like Label Studio"),
    ],
)
def test_silence_is_explained(failure: Exception, words: str) -> None:
    with pytest.raises(LabelStudioError, match=words), failures_as_sentences(URL, LEGACY):
        raise failure


def test_an_answer_that_is_no_json_but_an_error_keeps_its_status() -> None:
    answer = httpx.Response(502, text="<html>Bad gateway</html>")

    with (
        pytest.raises(LabelStudioError, match="502") as caught,
        failures_as_sentences(URL, LEGACY),
    ):
        read_answer(answer)

    assert caught.value.status == 502


def test_an_address_where_nobody_listens_is_explained() -> None:
    client = LabelStudioClient("http://127.0.0.1:1/", LEGACY)

    with pytest.raises(LabelStudioError, match="cannot be reached"):
        client.user()


def test_a_personal_token_that_is_no_token_is_explained() -> None:
    client = LabelStudioClient("http://127.0.0.1:1", PERSONAL)

    with pytest.raises(LabelStudioError):
        client.user()
