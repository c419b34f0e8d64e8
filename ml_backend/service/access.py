"""Which Label Studio a project's images come from, and with which token."""

from __future__ import annotations

from ml_backend.domain import LabelStudioAccess


def choose_access(
    *,
    configured_url: str | None,
    configured_token: str | None,
    setup_hostname: str | None,
    setup_token: str | None,
    setup_allowed: bool,
) -> LabelStudioAccess:
    """Return the configured Label Studio, else the one that introduced itself, if that is allowed.

    The configured key goes to the configured address only. The token of a /setup request goes to
    the configured address when no key is set, because /setup names that server as its browser
    users see it (http://localhost:8080) and not as we reach it (http://label-studio:8080);
    otherwise to the address in the same request and nowhere else.
    """
    if configured_url is not None:
        return LabelStudioAccess(origin=configured_url, token=configured_token or setup_token)
    if setup_allowed and setup_hostname:
        return LabelStudioAccess(origin=setup_hostname.rstrip("/"), token=setup_token)
    return LabelStudioAccess(origin=None)
