"""A running backend of ours answers, and the toolkit passes on.

Nothing but the standard library: this runs in the toolkit's environment.
"""

from __future__ import annotations

import base64
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

SETUP_TIMEOUT_S = 2.5  # Label Studio waits 3
PREDICT_TIMEOUT_S = 95.0  # Label Studio waits 100
WEBHOOK_TIMEOUT_S = 10.0
MOST_BYTES = 1 << 30  # of an answer

log = logging.getLogger(__name__)


class Forwarding:
    """Passes Label Studio's requests on; safe for many threads."""

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        secret: str | None = None,
    ) -> None:
        """Keep where to.

        Args:
            url: Of the backend; user name and password may stand in it.
            user: Of the backend's Basic auth.
            password: Of the same.
            secret: That its webhooks must carry.

        Raises:
            ValueError: it is no address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"ML_BACKEND_URL is {url!r}; write it like http://localhost:9090.")
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
        user = unquote(parts.username) if parts.username else user
        password = unquote(parts.password) if parts.password else password
        self._headers = {"Content-Type": "application/json"}
        if user and password:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {pair}"
        self._secret = secret
        # the backend is ours and near: proxies of the environment are not for it, and what it
        # refuses by sending on is to be read where it was said
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def set_up(self, body: Mapping[str, Any]) -> str:
        """Return the version that the backend serves the project with.

        Raises:
            RuntimeError: it refuses, with its own sentence, or cannot be reached.
        """
        answer = self._post("/setup", body, timeout_s=SETUP_TIMEOUT_S)
        return str(answer["model_version"])

    def predict(self, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Return the backend's entries; {} for every task when it does not answer."""
        count = len(body["tasks"])
        try:
            results = self._post("/predict", body, timeout_s=PREDICT_TIMEOUT_S)["results"]
        except (RuntimeError, KeyError, TypeError) as error:
            log.error("Without predictions: %s", error)
            return [{}] * count
        if not isinstance(results, list) or len(results) != count:
            log.error("Without predictions: the ML backend answered for another number of tasks.")
            return [{}] * count
        return results

    def tell(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        """Pass an event on; return the backend's answer, or why there is none."""
        own = {"X-Backend-Secret": self._secret} if self._secret else {}
        try:
            return dict(
                self._post(
                    "/webhook", body, timeout_s=WEBHOOK_TIMEOUT_S, headers={**own, **headers}
                )
            )
        except (RuntimeError, TypeError, ValueError) as error:
            log.error("An event was not passed on: %s", error)
            return {"status": "error", "message": str(error)}

    def _post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked above
            self._url + path,
            data=json.dumps(body).encode(),
            headers={**self._headers, **(headers or {})},
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=timeout_s) as answer:
                return json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(_sentence(error)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RuntimeError(
                f"The ML backend at {self._url} does not answer ({reason}); check ML_BACKEND_URL "
                "and that it runs."
            ) from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _sentence(error: urllib.error.HTTPError) -> str:
    try:
        said = json.loads(error.read(100_000))["message"]
    except (OSError, ValueError, KeyError, TypeError):
        said = f"The ML backend answered HTTP {error.code}; see its log."
    return str(said)
