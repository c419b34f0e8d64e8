"""The connection to a server: sends calls, reads bounded answers, asks again where that is safe."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from ml_backend import __version__
from ml_backend.client.address import Address
from ml_backend.client.call import Call
from ml_backend.client.problems import (
    MAX_PROBLEM_BYTES,
    error_of_answer,
    error_of_connection,
    may_pass,
)
from ml_backend.client.retries import PASSING_STATUSES, Retries, retry_after_s
from ml_backend.errors import BackendError, BadRequest, InProgress, ServerError

CONNECT_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64_000_000
"""Largest answer that is read into memory where nothing else is said."""

Read = TypeVar("Read")


class PassingFailure(Exception):
    """An attempt failed for a reason that may have passed in a moment."""

    def __init__(self, error: BackendError, *, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s  # that the server asks for


class Connection:
    """Sends calls to one server; safe to use from many threads."""

    def __init__(
        self,
        address: Address,
        *,
        authorization: str | None,
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
        certificates: Path | None = None,
        retries: Retries | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep what calls need; nothing is sent yet.

        Raises:
            BadRequest: `certificates` cannot be read.
        """
        self.address = address
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._sleep = sleep
        headers = {"User-Agent": f"ml-backend-client/{__version__}", "Accept": "*/*"}
        if authorization is not None:
            headers["Authorization"] = authorization
        self._http = httpx.Client(
            base_url=address.url,
            headers=headers,
            timeout=self._timeout(timeout_s),
            transport=transport,
            verify=_verification(certificates),
            trust_env=not address.is_here,  # proxies are not for what runs on this machine
            follow_redirects=False,  # a token goes to the address it was given for
        )

    def close(self) -> None:
        """Close what is open."""
        self._http.close()

    def ask(self, call: Call, *, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
        """Return the body of the answer to a call.

        Raises:
            BackendError: what the server refuses with, of the same class.
            ServerUnreachable: nobody answers.
            ServerError: it is larger than `max_bytes`, or not an ML backend's.
        """
        return self.fetch(call, lambda response: self.read(response, max_bytes))

    def fetch(self, call: Call, consume: Callable[[httpx.Response], Read]) -> Read:
        """Return what `consume` makes of the answer to a call, while it arrives.

        Where the call is repeatable and the connection breaks, `consume` gets another answer, from
        its beginning.

        Raises:
            BackendError: as `ask`.
        """
        delays = self._retries.delays() if call.is_repeatable else iter(())
        while True:
            try:
                with self.attempt(call) as response:
                    return consume(response)
            except PassingFailure as failure:
                delay_s = next(delays, None)
                if delay_s is None:
                    raise failure.error from failure.__cause__
                wait_s = self._retries.wait_s(delay_s, failure.wait_s)
            self._sleep(wait_s)

    @contextmanager
    def attempt(self, call: Call) -> Iterator[httpx.Response]:
        """Send a call once and yield the answer, whose body has not arrived yet.

        Raises:
            PassingFailure: asking again may help.
            BackendError: it will not.
        """
        timeout_s = self._timeout_s if call.timeout_s is None else call.timeout_s
        try:
            with ExitStack() as opened:
                arguments = call.arguments(opened)
                response = opened.enter_context(
                    self._http.stream(
                        call.method, call.path, timeout=self._timeout(timeout_s), **arguments
                    )
                )
                if not response.is_success:
                    self._refuse(response)
                yield response
        except httpx.HTTPError as error:
            found = error_of_connection(error, str(self.address), timeout_s=timeout_s)
            if may_pass(error):
                raise PassingFailure(found) from error
            raise found from error

    def read(self, response: httpx.Response, max_bytes: int) -> bytes:
        """Return the whole body of an answer.

        Raises:
            ServerError: it is larger than `max_bytes`.
        """
        body = bytearray()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > max_bytes:
                raise ServerError(
                    f"{self.address} sends more than {max_bytes / 1e6:g} MB; ask for less at once, "
                    "or write it to a file."
                )
        return bytes(body)

    def _refuse(self, response: httpx.Response) -> None:
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MAX_PROBLEM_BYTES:
                break
        error = error_of_answer(response, bytes(content), str(self.address))
        if response.status_code in PASSING_STATUSES or isinstance(error, InProgress):
            wait_s = retry_after_s(response.headers.get("retry-after"))
            raise PassingFailure(error, wait_s=wait_s)
        raise error

    @staticmethod
    def _timeout(timeout_s: float) -> httpx.Timeout:
        return httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))


def _verification(certificates: Path | None) -> ssl.SSLContext | bool:
    if certificates is None:
        return True
    try:
        return ssl.create_default_context(cafile=certificates)
    except (OSError, ssl.SSLError) as error:
        raise BadRequest(
            f"{certificates} holds no certificates that can be read ({error.strerror}); give a PEM "
            "file."
        ) from None
