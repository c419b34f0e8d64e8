"""Who may use /api/v1, and for what.

A caller shows a token, or the user name and password of Basic auth. Programs on this machine need
neither while there is nothing they could show: no token is in use and Basic auth is off.

A reverse proxy on this machine makes strangers look local, and a web page that a person opens
here can send requests to this machine. Both give themselves away in their headers. A browser also
sends a password that it knows along with what other sites' pages ask for, but no token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from ml_backend.callers import Caller, Role
from ml_backend.errors import Forbidden, Unauthorized
from ml_backend.settings import is_loopback
from ml_backend.store.tokens import Tokens
from ml_backend.web.auth import is_basic_right

REALM: Final = "ml-backend"
BASIC_CHALLENGE: Final = f'Basic realm="{REALM}"'
BEARER_CHALLENGE: Final = f'Bearer realm="{REALM}"'
_OF_PROXIES: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class NotAdmitted(Unauthorized):
    """The token is wrong or missing; `ml-backend tokens create` makes one."""

    def __init__(self, message: str | None = None, *, challenges: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.challenges = challenges  # for the header WWW-Authenticate


class Admission:
    """Finds out who calls; one for the application, in `app.state.admission`."""

    def __init__(
        self,
        tokens: Tokens,
        *,
        basic_auth: tuple[str, str] | None = None,
        in_process: Caller | None = None,
    ) -> None:
        """Keep what callers are known by.

        Args:
            tokens: The records of them.
            basic_auth: User name and password; whoever knows them is an admin of that name.
            in_process: Who sends every request, where the application serves nobody else.
        """
        self._tokens = tokens
        self._basic_auth = basic_auth
        self._in_process = in_process

    def admit(self, request: Request) -> Caller:
        """Return who sent a request.

        Raises:
            Unauthorized: what it shows is wrong, or it shows nothing and must.
            Forbidden: it shows nothing and is not from this machine, or a web page of another
                site has sent it.
            StoreError
        """
        if self._in_process is not None:
            return self._in_process
        authorization = request.headers.get("authorization", "")
        scheme, _, shown = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return self._admit_bearer(shown.strip())
        if self._basic_auth is not None and is_basic_right(authorization, self._basic_auth):
            _refuse_foreign_pages(request)
            return Caller(name=self._basic_auth[0], role=Role.ADMIN)
        if self._basic_auth is not None or self._tokens.has_any():
            raise self._stranger(scheme)
        admit_local(request)
        return Caller(name=None, role=Role.ADMIN)

    def _admit_bearer(self, text: str) -> Caller:
        token = self._tokens.authenticate(text)
        if token is None:
            raise NotAdmitted(
                "The token is wrong or revoked; `ml-backend tokens create` makes a new one.",
                challenges=(f'{BEARER_CHALLENGE}, error="invalid_token"',),
            )
        return Caller(name=token.name, role=token.role)

    def _stranger(self, scheme: str) -> NotAdmitted:
        is_wrong = scheme.lower() == "basic"
        what = "The user name or password is wrong" if is_wrong else "Nothing says who asks"
        remedy = "send `Authorization: Bearer` and a token of `ml-backend tokens create`"
        if self._basic_auth is None:
            return NotAdmitted(f"{what}; {remedy}.", challenges=(BEARER_CHALLENGE,))
        return NotAdmitted(
            f"{what}; {remedy}, or BASIC_AUTH_USER and BASIC_AUTH_PASS.",
            challenges=(BASIC_CHALLENGE, BEARER_CHALLENGE),
        )


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
        raise Forbidden(
            "Without a token, /api/v1 answers this machine only, and nothing that a proxy passes "
            "on; `ml-backend tokens create` makes one."
        )
    for header in _OF_PROXIES:
        if header in request.headers:
            raise Forbidden(
                f"Without a token, /api/v1 answers this machine only, and the header {header} says "
                "that the request came through a proxy; `ml-backend tokens create` makes one."
            )
    if not _is_local_name(request.headers.get("host", "")):
        raise Forbidden(
            "Without a token, /api/v1 answers this machine only; ask for it as localhost or "
            "127.0.0.1, or make a token with `ml-backend tokens create`."
        )
    _refuse_foreign_pages(request)


def _refuse_foreign_pages(request: Request) -> None:
    """Refuse what a browser says comes from a page that is not ours.

    Raises:
        Forbidden
    """
    origin = request.headers.get("origin")
    is_ours = origin is None or _netloc(origin) == request.headers.get("host", "").lower()
    # images and scripts of other pages come without an origin, but not without this
    site = request.headers.get("sec-fetch-site", "none")
    if not is_ours or site not in ("none", "same-origin"):
        raise Forbidden("Without a token, /api/v1 answers no web pages of other sites.")


def _netloc(address: str) -> str | None:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return None


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
