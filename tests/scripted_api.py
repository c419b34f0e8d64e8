"""A small web application that answers as a test has written down, and notes what it is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEPT_BYTES = 4_000_000  # of a body; more of it is counted, not kept


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that arrived."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]  # names in small letters
    body: bytes  # its beginning
    size: int  # of the whole body
    sha256: str  # of the whole body

    @property
    def content(self) -> Any:
        """Return the body, JSON."""
        return orjson.loads(self.body)


Answer = Callable[[Asked], Response]


def answered(content: Any = None, status: int = 200, **headers: str) -> Answer:
    """Return an answer in JSON; header names have _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(
        orjson.dumps(content), status, headers=named, media_type="application/json"
    )


def refused(status: int, code: str, sentence: str = "It is refused.", **headers: str) -> Answer:
    """Return a problem document."""
    problem = {
        "type": "about:blank",
        "title": "Refused",
        "status": status,
        "detail": sentence,
        "code": code,
        "request_id": "0f6c1e2d",
    }
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(
        orjson.dumps(problem), status, headers=named, media_type="application/problem+json"
    )


@dataclass
class ScriptedApi:
    """Answers by method and path: the first that is written down, then the next, the last again."""

    script: dict[str, list[Answer]] = field(default_factory=dict)  # "GET /api/v1/load" -> answers
    asked: list[Asked] = field(default_factory=list)

    def on(self, route: str, *answers: Answer) -> None:
        """Write down what a route answers."""
        self.script[route] = list(answers)

    def asked_of(self, route: str) -> list[Asked]:
        """Return the requests to a route."""
        return [one for one in self.asked if f"{one.method} {one.path}" == route]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        kept, size, digest = bytearray(), 0, hashlib.sha256()
        async for piece in request.stream():
            size += len(piece)
            digest.update(piece)
            kept += piece[: max(0, KEPT_BYTES - len(kept))]
        asked = Asked(
            method=request.method,
            path=scope["path"],
            query=list(request.query_params.multi_items()),
            headers=dict(request.headers),
            body=bytes(kept),
            size=size,
            sha256=digest.hexdigest(),
        )
        self.asked.append(asked)
        answers = self.script.get(f"{asked.method} {asked.path}")
        if not answers:
            answer = refused(404, "request.not_found", f"There is no {asked.path}.")
        else:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        await answer(asked)(scope, receive, send)
