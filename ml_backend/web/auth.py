"""Who may call: Basic auth and the webhooks' secret, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac


def is_basic_right(authorization: str | None, expected: tuple[str, str] | None) -> bool:
    """Return whether the Authorization header carries the expected user and password."""
    if expected is None or authorization is None:
        return False
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, ":".join(expected).encode())


def _is_secret_right(given: str | None, expected: str | None) -> bool:
    if given is None or expected is None:
        return False
    return hmac.compare_digest(given.encode(), expected.encode())


def is_webhook_welcome(
    *,
    action: str,
    given_secret: str | None,
    authorization: str | None,
    secret: str | None,
    basic_auth: tuple[str, str] | None,
) -> bool:
    """Return whether a webhook event may be recorded.

    Either proof will do, and where there is one to give it must be given: `connect` puts both into
    the webhook's headers. Of itself Label Studio sends no Basic auth with events; START_TRAINING
    is the other way round, so without Basic auth it comes with nothing. It is only a trigger.
    """
    if secret is None and basic_auth is None:
        return True
    if is_basic_right(authorization, basic_auth) or _is_secret_right(given_secret, secret):
        return True
    return action == "START_TRAINING" and basic_auth is None
