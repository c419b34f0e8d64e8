"""Answers /predict: which release, which engine, and {} where nothing can be had in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from starlette.concurrency import run_in_threadpool

from ml_backend.domain import ProjectKey, Release
from ml_backend.errors import BackendError, BadRequest, EngineUnavailable
from ml_backend.store.projects import parse_project
from ml_backend.web.answers import Answer, check_answer, empty_answer
from ml_backend.web.dependencies import EngineBrokeOff, EngineCall, WebDependencies
from ml_backend.web.introduction import Introductions
from ml_backend.web.requests import PredictRequest, origin_of

_T = TypeVar("_T")

_LEAST_BUDGET_S = 0.1  # an engine refuses 0

log = structlog.get_logger(__name__)


class Predictions:
    """Turns a /predict request into an answer that Label Studio can always take."""

    def __init__(self, dependencies: WebDependencies, introductions: Introductions) -> None:
        self._own = dependencies
        self._introductions = introductions

    async def answer(self, request: PredictRequest, *, deadline: float) -> Answer:
        """Return exactly one valid entry per task, by `deadline` of `time.monotonic`.

        An engine that is starting is waited for.

        Raises:
            BadRequest: neither the project nor a label config is known.
        """
        count = len(request.tasks)
        try:
            release, body = await self._ask_twice(request, deadline)
        except BadRequest:
            raise
        except BackendError as error:
            log.warning(
                "predict answered without predictions",
                project=request.project,
                tasks=count,
                code=error.code,
                reason=error.message,
            )
            return empty_answer(count)
        answer = await run_in_threadpool(check_answer, body, count=count, version=release.version)
        if answer.replaced:
            log.error(
                "engine answered with invalid entries",
                project=request.project,
                tasks=count,
                invalid=answer.replaced,
                release=release.version,
            )
        return answer

    async def _release(self, request: PredictRequest) -> tuple[ProjectKey, Release]:
        return await run_in_threadpool(self._find_release, request)

    def _find_release(self, request: PredictRequest) -> tuple[ProjectKey, Release]:
        project = self._own.projects.find(request.project)
        if project is not None:
            release = self._own.releases.active(project.key)
            if release is not None:
                return project.key, release
        label_config = request.label_config or (project.label_config if project else None)
        if label_config is None:
            raise BadRequest(
                'The project is unknown and the request has no "label_config"; '
                "send /setup first, as Label Studio does."
            )
        key = project.key if project else self._unknown_project(request.project)
        introduced = self._introductions.introduce(
            key,
            label_config=label_config,
            hostname=project.hostname if project else self._own.label_studio_url,
            access_token=project.access_token if project else None,
        )
        return key, introduced.release

    def _unknown_project(self, project: str) -> ProjectKey:
        project_id, created_at = parse_project(project) or (0, 1)
        return ProjectKey(
            origin=origin_of(self._own.label_studio_url),
            project_id=project_id,
            created_at=created_at,
        )

    async def _ask_twice(self, request: PredictRequest, deadline: float) -> tuple[Release, bytes]:
        """Return the engine's answer and of which release; one that went away is asked once more.

        Not more often: a task may be what kills it.
        """

        def ask() -> Awaitable[tuple[Release, bytes]]:
            return self._ask(request, deadline)

        try:
            return await self._until(deadline, ask)
        except EngineBrokeOff as error:
            if time.monotonic() >= deadline:
                raise
            log.warning("engine is asked once more", reason=error.message)
            return await self._until(deadline, ask)

    async def _ask(self, request: PredictRequest, deadline: float) -> tuple[Release, bytes]:
        # read anew at each attempt: an engine refuses what has been replaced meanwhile
        key, release = await self._release(request)
        call = EngineCall(
            release=release.version,
            project=key,
            tasks=request.tasks,
            label_config=release.label_config,
            budget_s=max(_LEAST_BUDGET_S, deadline - time.monotonic()),
            context=request.context,
        )
        return release, await self._own.engine.predict(call)

    async def _until(self, deadline: float, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Return the attempt's value, tried again until `deadline` while no engine is there."""
        while True:
            try:
                return await attempt()
            except EngineUnavailable:
                if time.monotonic() + self._own.poll_s >= deadline:
                    raise
                await asyncio.sleep(self._own.poll_s)
