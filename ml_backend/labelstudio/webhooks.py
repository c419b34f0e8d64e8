"""The headers of our webhooks: a secret, and which Label Studio an event comes from.

Label Studio's events name a project but not the server it lives on, so the webhook carries the
server's address in a header; the same header marks a webhook as made by us.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from ml_backend.labelstudio.rows import BasicAuth, ConnectedBackend, Webhook

SECRET_HEADER = "X-Backend-Secret"  # noqa: S105 - the header's name
ORIGIN_HEADER = "X-Label-Studio-Origin"
UNKNOWN_ORIGIN = "unknown"  # of a project whose Label Studio has not named itself


def webhook_url(backend_url: str) -> str:
    """Return where the backend at `backend_url` takes events."""
    return backend_url.rstrip("/") + "/webhook"


def webhook_headers(*, origin: str, secret: str | None, auth: BasicAuth | None) -> dict[str, str]:
    """Return the headers that our webhook must carry."""
    headers = {ORIGIN_HEADER: origin}
    if secret is not None:
        headers[SECRET_HEADER] = secret
    if auth is not None:  # Label Studio sends the backend's Basic auth with everything but events
        pair = base64.b64encode(f"{auth.user}:{auth.password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    return headers


def is_ours(webhook: Webhook) -> bool:
    """Return whether `ml-backend connect` made or adopted this webhook."""
    return header(webhook, ORIGIN_HEADER) is not None


def header(webhook: Webhook, name: str) -> str | None:
    """Return a header's value whatever its capitals, or None."""
    found: Mapping[str, str] = {key.lower(): value for key, value in webhook.headers.items()}
    return found.get(name.lower())


def orphaned(webhooks: Iterable[Webhook], backends: Iterable[ConnectedBackend]) -> list[Webhook]:
    """Return our webhooks whose backend is no longer connected to the project."""
    alive = {webhook_url(backend.url) for backend in backends}
    return [webhook for webhook in webhooks if is_ours(webhook) and webhook.url not in alive]
