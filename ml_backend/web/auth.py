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


def is_webhook_welcome(
    *,
    action: str,
    given_secret: str | None,
    authorization: str | None,
    secret: str | None,
    basic_auth: tuple[str, str] | None,
) -> bool:
    """Return whether a webhook event may be recorded.

    Label Studio's events never carry Basic auth, only headers set on the webhook; START_TRAINING
    is the other way round, so without Basic auth it comes with nothing. It is only a trigger.
    """
    if secret is None or is_basic_right(authorization, basic_auth):
        return True
    if given_secret is not None and hmac.compare_digest(given_secret.encode(), secret.encode()):
        return True
    return action == "START_TRAINING" and basic_auth is None
