"""What is sent to Label Studio as `Authorization`.

A legacy token is sent as it is. A personal access token is a JWT refresh token: Label Studio
refuses it as it is and exchanges it for an access token that lives 300 s, which is kept here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from ml_backend.domain import LabelStudioAccess, is_personal_access_token
from ml_backend.errors import ImageFetchError
from ml_backend.imaging.transport import Deadline, GuardedClient

_ACCESS_LIFE_S = 300.0  # where the access token does not say
_RENEW_BEFORE_S = 60.0  # of its end, so that no download starts with a token about to expire
_ANSWER_AT_MOST = 64 * 1024  # bytes


def fingerprint(token: str | None) -> str:
    """Return a hash that tells tokens apart without telling what they are."""
    return hashlib.sha256((token or "").encode()).hexdigest()[:16]


@dataclass
class _Slot:
    """The access token of one personal access token."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    header: str | None = field(default=None, repr=False)
    renew_at: float = 0.0  # by the clock


class Credentials:
    """Makes `Authorization` headers; keeps access tokens in memory only."""

    def __init__(
        self, client: GuardedClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make an empty keeper of access tokens.

        Args:
            client: sends the exchange.
            clock: seconds, never going back.
        """
        self._client = client
        self._clock = clock
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._slots_lock = threading.Lock()

    def header(
        self, access: LabelStudioAccess, *, deadline: Deadline, refused: str | None = None
    ) -> str | None:
        """Return the value of `Authorization`, None without a token.

        Args:
            access: whose token for which Label Studio.
            deadline: of the download that needs it.
            refused: the header that Label Studio just answered 401 to; a new one is made unless
                another thread has done so meanwhile.

        Raises:
            ImageFetchError: when the personal access token cannot be exchanged.
        """
        token = access.token.strip() if access.token else None
        if not token or access.origin is None:
            return None
        if not is_personal_access_token(token):
            return f"Token {token}"
        slot = self._slot(access.origin, token)
        with slot.lock:  # many may wait here for one exchange
            current = slot.header is not None and self._clock() < slot.renew_at
            if not current or slot.header == refused:
                access_token = self._exchange(access.origin, token, deadline)
                slot.header = f"Bearer {access_token}"
                slot.renew_at = self._clock() + _usable_s(access_token)
            return slot.header

    def _slot(self, origin: str, token: str) -> _Slot:
        key = (origin, fingerprint(token))
        with self._slots_lock:
            return self._slots.setdefault(key, _Slot())

    def _exchange(self, origin: str, token: str, deadline: Deadline) -> str:
        url = httpx.URL(f"{origin}/api/token/refresh/")
        with self._client.send(
            "POST",
            url,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            body=json.dumps({"refresh": token}).encode(),
            deadline=deadline,
            trusted=True,
        ) as answer:
            body = b""
            for chunk in answer.chunks:
                body += chunk
                if len(body) > _ANSWER_AT_MOST:
                    break
            status = answer.status
        if status in (400, 401, 403):
            raise ImageFetchError(
                "Label Studio refuses the personal access token (it expired, was revoked or "
                "belongs to another server); create a new one under Account & Settings and set "
                "LABEL_STUDIO_API_KEY."
            )
        try:
            found = json.loads(body)["access"] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, str) or not found.isascii():
            raise ImageFetchError(
                f"Label Studio answered {status} instead of an access token; check that "
                "LABEL_STUDIO_URL is the address of Label Studio itself."
            )
        return found


def refusal(access: LabelStudioAccess, status: int) -> str:
    """Return the sentence for a 401 or 403 of Label Studio: what is wrong and what to do."""
    how = (
        "create a personal access token under Account & Settings and set LABEL_STUDIO_API_KEY "
        "(and LABEL_STUDIO_URL)"
    )
    if not access.token:
        return f"Label Studio wants to know who downloads its images; {how}."
    if status == 403:
        return (
            "The owner of LABEL_STUDIO_API_KEY may not see this project's images; "
            "add that user to the project or use the token of somebody who is in it."
        )
    if is_personal_access_token(access.token):
        return f"Label Studio refuses the personal access token; {how}."
    return (
        "Label Studio refuses the legacy token (it is wrong, or the organization has legacy tokens "
        f"turned off, as new ones do); {how}, or enable legacy tokens under Organization > API "
        "tokens."
    )


def _usable_s(access_token: str) -> float:
    """Return for how long an access token is used, by its own words, free of clock skew."""
    try:
        payload = access_token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        life = float(claims["exp"]) - float(claims["iat"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        life = _ACCESS_LIFE_S
    return max(life - _RENEW_BEFORE_S, life / 2)
