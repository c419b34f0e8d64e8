"""/livez and /readyz: whether this process is alive, and whether it can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from ml_backend.errors import StoreError
from ml_backend.store.readiness import RecordsState
from ml_backend.store.releases import DEFAULT_PROJECT
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.engine_look import PROBE_WITHIN_S, look_at_engine
from ml_backend.web.json_answer import json_response

RECORDS_WITHIN_S: Final = 2.0
"""So long the records may take; then they are taken to be away."""
OK: Final = "ok"
_AWAY: Final = "away"


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What was found."""

    checks: Mapping[str, str]  # "ok", or what is the matter in a word or two
    is_ready: bool


class ReadinessCheck:
    """Looks whether what Label Studio and the API ask of this process can be done.

    Needed are the records, with this version's tables and writable, and the release of MODEL, which
    an engine writes once it has looked for it. An engine that is away now is only shown: without
    one /setup, /webhook and the API about sessions and models are answered all the same.
    """

    def __init__(
        self, dependencies: WebDependencies, *, records_within_s: float = RECORDS_WITHIN_S
    ) -> None:
        self._own = dependencies
        self._records_within_s = records_within_s
        self._looking: asyncio.Task[dict[str, str]] | None = None

    async def look(self) -> Readiness:
        """Return what is found, within `RECORDS_WITHIN_S`."""
        records, engine = await asyncio.gather(
            self._look_at_records(),
            look_at_engine(self._own.engine, timeout_s=PROBE_WITHIN_S),
        )
        is_ready = all(state == OK for state in records.values())
        checks = {**records, "engine": _AWAY if engine is None else OK}
        return Readiness(checks=checks, is_ready=is_ready)

    async def _look_at_records(self) -> dict[str, str]:
        # while a database hangs, probes come again and again: they share one thread
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(run_in_threadpool(self._read))
        try:
            return await asyncio.wait_for(asyncio.shield(self._looking), self._records_within_s)
        except TimeoutError:
            return {"records": _AWAY}

    def _read(self) -> dict[str, str]:
        try:
            state = self._own.records()
            if state is RecordsState.OTHER_VERSION:
                return {"records": state.value}  # the rest cannot be read
            return {"records": state.value, "release": self._read_release()}
        except StoreError:
            return {"records": _AWAY}

    def _read_release(self) -> str:
        resolution = self._own.components.resolution(self._own.models.model)
        if resolution is not None and resolution.problem is not None:
            return "unusable"  # /health says why
        release = self._own.releases.active(DEFAULT_PROJECT)
        is_there = resolution is not None and resolution.component is not None
        return OK if is_there and release is not None else "missing"


def readiness_router(dependencies: WebDependencies) -> APIRouter:
    """Return the routes for whatever watches over this process; they want no credentials."""
    check = ReadinessCheck(dependencies)
    router = APIRouter(tags=["operations"])

    @router.get("/livez", response_class=Response, responses={200: _described("alive")})
    async def livez() -> Response:
        """Say that this process answers; it looks at nothing else."""
        return json_response({"status": "alive"})

    @router.get(
        "/readyz",
        response_class=Response,
        responses={200: _described("ready"), 503: _described("not ready")},
    )
    async def readyz() -> Response:
        """Say whether the records and a release are there; of the engine it only tells."""
        found = await check.look()
        status = "ready" if found.is_ready else "not ready"
        return json_response(
            {"status": status, "checks": dict(found.checks)}, status=200 if found.is_ready else 503
        )

    return router


def _described(status: str) -> dict[str, object]:
    checks = {"type": "object", "additionalProperties": {"type": "string"}}
    schema = {
        "type": "object",
        "properties": {"status": {"type": "string", "const": status}, "checks": checks},
        "required": ["status"],
    }
    return {"description": status, "content": {"application/json": {"schema": schema}}}
