"""One Label Studio and our key to it."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx

from ml_backend.labelstudio.transport import (
    TIMEOUT_S,
    connect_sdk,
    failures_as_sentences,
    read_answer,
)

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase


class Connection:
    """The way to one Label Studio, as the owner of `api_key` has it.

    Every method raises LabelStudioError with a sentence that says what to do.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s

    @cached_property
    def _sdk(self) -> LabelStudioBase:
        # made at the first call, so that a process that never calls does not import the SDK
        return connect_sdk(self.url, self._api_key, timeout_s=self._timeout_s)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON answer to a request that carries our credentials."""
        with failures_as_sentences(self.url, self._api_key):
            # the SDK's typed calls lack some of these routes and drop fields of others
            transport = self._sdk._client_wrapper.httpx_client
            return read_answer(transport.request(path, method=method, **options))

    def now(self) -> float:
        """Return the time by Label Studio's clock, seconds since the epoch, to the second."""
        with failures_as_sentences(self.url, self._api_key):
            answer = httpx.get(f"{self.url}/api/version/", timeout=self._timeout_s)
        try:
            moment = parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            return time.time()  # a proxy that takes the header away
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
