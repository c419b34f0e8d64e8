"""Who may use /api/v1, and for what.

While there are no tokens: programs on this machine, and no web page.

A reverse proxy on this machine makes strangers look local, and a web page that a person opens
here can send requests to this machine. Both give themselves away in their headers.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import Request

from ml_backend.callers import Caller, Role
from ml_backend.errors import Forbidden
from ml_backend.settings import is_loopback

_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Admission:
    """Finds out who calls; one for the application, in `app.state.admission`."""

    def admit(self, request: Request) -> Caller:
        """Return who sent a request.

        Raises:
            Forbidden: nobody who may use /api/v1.
        """
        admit_local(request)
        return Caller(name=None, role=Role.ADMIN)


def allow(role: Role) -> Callable[[Request], Caller]:
    """Return the dependency of a route that callers need `role` for.

    It raises Unauthorized for strangers and Forbidden for callers of a lower role.
    """

    def admit(request: Request) -> Caller:
        admission: Admission = request.app.state.admission
        caller = admission.admit(request)
        if not caller.role.includes(role):
            raise Forbidden(
                f"The token {caller.name!r} has the role {caller.role}; this needs {role}."
            )
        request.state.caller = caller
        return caller

    return admit


def caller_of(request: Request) -> Caller:
    """Return who sent a request that was let in."""
    caller: Caller = request.state.caller
    return caller


def admit_local(request: Request) -> None:
    """Let a request in that comes from this machine.

    Raises:
        Forbidden: it comes from elsewhere, through a proxy, or from another site's page.
    """
    if request.client is None or not is_loopback(request.client.host):
        raise Forbidden
    if request.scope.get("http_version") == "1.0":  # as nginx asks unless it is told otherwise
        raise Forbidden("/api/v1 answers this machine only, and nothing that a proxy passes on.")
    for header in _OF_PROXIES:
        if header in request.headers:
            raise Forbidden(
                f"/api/v1 answers this machine only, and the header {header} says that the "
                "request came through a proxy; ask it directly or use the command line."
            )
    if not _is_local_name(f"//{request.headers.get('host', '')}"):
        raise Forbidden("/api/v1 answers this machine only; ask for it as localhost or 127.0.0.1.")
    origin = request.headers.get("origin")
    if origin is not None and not _is_local_name(origin):
        raise Forbidden("/api/v1 answers no web pages of other sites.")


def _is_local_name(address: str) -> bool:
    try:
        name = urlsplit(address).hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
