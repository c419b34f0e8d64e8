"""Turns refusals and broken connections into our errors, each a sentence for a person."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpx
import msgspec

from ml_backend.errors import (
    BackendError,
    BadRequest,
    Conflict,
    EngineUnavailable,
    Forbidden,
    NotFound,
    RequestTooLarge,
    ServerError,
    ServerUnreachable,
    Unauthorized,
    error_of,
)

MAX_PROBLEM_BYTES = 100_000
_SHOWN_CHARS = 200  # of an answer that is no problem document

_BY_STATUS: dict[int, type[BackendError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: RequestTooLarge,
    502: ServerError,
    503: EngineUnavailable,
    504: ServerError,
}


class _Problem(msgspec.Struct):
    """RFC 9457, and the shorter form of the routes outside /api/v1."""

    code: str
    detail: str = ""
    message: str = ""
    request_id: str | None = None


def error_of_answer(response: httpx.Response, content: bytes, server: str) -> BackendError:
    """Return the error that an answer other than 2xx stands for.

    Args:
        response: Its status and headers count.
        content: Its body, or the beginning of it.
        server: The address, for the sentence.
    """
    status = response.status_code
    if 300 <= status < 400:
        target = httpx.URL(response.headers.get("location", "")).copy_with(query=None)
        return ServerError(
            f"{server} sends us on to {str(target)[:_SHOWN_CHARS]!r}; give the address that really "
            "answers, so that no token goes astray."
        )
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _unknown(response, content, server)
    sentence = problem.detail or problem.message or f"{server} answered {status}."
    if problem.code.startswith("http."):  # no route of this kind is there
        path = response.request.url.path
        sentence = f"{server} answered {status} for {path}; it may be of another version than this."
    error = error_of(problem.code, sentence) or _of_status(status)(sentence)
    if problem.request_id:
        error.add_note(f"The server's log calls this request {problem.request_id}.")
    return error


def _unknown(response: httpx.Response, content: bytes, server: str) -> BackendError:
    text = " ".join(content[: 4 * _SHOWN_CHARS].decode("utf-8", "replace").split())
    shown = f" ({text[:_SHOWN_CHARS]})" if text and not text.startswith("<") else ""
    return _of_status(response.status_code)(
        f"{server} answered {response.status_code} {response.reason_phrase}{shown}, and not as an "
        "ML backend does; check the address."
    )


def _of_status(status: int) -> type[BackendError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadRequest if 400 <= status < 500 else ServerError


def error_of_connection(error: httpx.HTTPError, server: str, *, timeout_s: float) -> ServerError:
    """Return the error that stands for a connection that could not be made, or that broke."""
    causes = tuple(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ServerUnreachable(
                f"The certificate of {server} cannot be trusted ({cause.verify_message}); give the "
                "client the file of the authority that signed it (certificates=..., SSL_CERT_FILE)."
            )
        if isinstance(cause, ssl.SSLError):
            return ServerUnreachable(
                f"{server} does not speak TLS as it should ({cause.reason}); if it has no "
                "certificate its address begins with http://."
            )
        if isinstance(cause, socket.gaierror):
            return ServerUnreachable(
                f"There is no machine of the name in {server}; check the address."
            )
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return ServerUnreachable(
            f"{server} cannot be reached in time; check the address and the firewall."
        )
    if isinstance(error, httpx.TimeoutException):
        return ServerUnreachable(
            f"{server} sent nothing for {timeout_s:g} s; it may be busy, so try again, or wait "
            "longer (timeout_s)."
        )
    if isinstance(error, httpx.ConnectError):
        return ServerUnreachable(
            f"Nobody answers at {server}; start the backend there (`ml-backend serve`) or name "
            "another address (ML_BACKEND_URL)."
        )
    return ServerUnreachable(
        f"{server} broke the connection off ({error or type(error).__name__}); its log says why."
    )


def may_pass(error: httpx.HTTPError) -> bool:
    """Return whether asking again in a moment can help."""
    hopeless = (ssl.SSLError, socket.gaierror)
    return isinstance(error, httpx.TransportError) and not any(
        isinstance(cause, hopeless) for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
