"""The header Idempotency-Key: a start that is sent again starts nothing again."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Header, Request, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.errors import BadRequest, StoreError
from ml_backend.store.idempotency import IdempotencyClaim, IdempotencyKeys, KeptAnswer
from ml_backend.web.api.access import caller_of

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
MAX_KEY_CHARS = 200

log = structlog.get_logger(__name__)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=HEADER,
        description=(
            f"1 to {MAX_KEY_CHARS} printable characters, new for each start. The same request with "
            f"the same key within 24 hours gets the first answer again, with {REPLAYED}: true."
        ),
    ),
]
"""The parameter of a route that takes the header; `once` reads it from the request itself."""


async def once(
    request: Request,
    keys: IdempotencyKeys,
    compute: Callable[[], Awaitable[Response]],
    *,
    body: bytes = b"",
) -> Response:
    """Answer a start, from what was kept where the caller's key came with it before.

    Use it in a route so, with the header as a parameter for OpenAPI's sake:

        async def start(self, request: Request, _key: IdempotencyKey = None) -> Response:
            body = await read_body(request, MAX_BODY_BYTES)

            async def compute() -> Response:
                wanted = parse(body)
                begun = await run_in_threadpool(self._desk.start, wanted)
                return json_response(session_json(begun), status=202)

            return await once(request, self._own.idempotency, compute, body=body)

    `compute` runs once for each caller, key and request, and for each request without a key. What
    it raises, or answers with a status from 400 on, does not bind the key.

    Args:
        request: One that was let in.
        keys: Where answers are kept.
        compute: Does the work; answers JSON whole, not streamed. Headers of it are not kept.
        body: The request's body, as it was read.

    Raises:
        BadRequest: the key is empty, too long or not printable.
        IdempotencyKeyReused: it came with another request before.
        InProgress: the first request with it is being worked on.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return await compute()
    if not 1 <= len(key) <= MAX_KEY_CHARS or not (key.isascii() and key.isprintable()):
        raise BadRequest(
            f"The header {HEADER} must be 1 to {MAX_KEY_CHARS} printable ASCII characters; a UUID "
            "will do."
        )
    caller = caller_of(request).name or ""
    claim = await run_in_threadpool(keys.claim, caller, key, _fingerprint(request, body))
    if isinstance(claim, KeptAnswer):
        return _answer(claim, headers={REPLAYED: "true"})
    try:
        response = await compute()
    except Exception:
        await run_in_threadpool(_end, keys, claim, None)
        raise
    is_bound = response.status_code < 400
    answer = KeptAnswer(status=response.status_code, body=bytes(response.body))
    await run_in_threadpool(_end, keys, claim, answer if is_bound else None)
    return response


def _end(keys: IdempotencyKeys, claim: IdempotencyClaim, answer: KeptAnswer | None) -> None:
    """Keep the answer or free the key; what was answered holds even if that cannot be written."""
    try:
        if answer is None:
            keys.give_up(claim)
        else:
            keys.keep(claim, answer)
    except StoreError as error:
        log.warning("idempotency key stays claimed for a while", reason=error.message)


def _answer(kept: KeptAnswer, *, headers: dict[str, str]) -> Response:
    return Response(
        kept.body, status_code=kept.status, media_type="application/json", headers=headers
    )


def _fingerprint(request: Request, body: bytes) -> str:
    """Return what tells a request from others: the route, what it asks for, and the body."""
    digest = hashlib.sha256()
    for part in (request.method, request.url.path, request.url.query):
        digest.update(part.encode())
        digest.update(b"\0")  # no part holds one: it would be %00
    digest.update(body)
    return digest.hexdigest()
