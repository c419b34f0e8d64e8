"""Which networks this machine can serve, written where the web process can read it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ml_backend.domain import POST_PROCESSING_REVISION, Component
from ml_backend.errors import EngineError, ModelError
from ml_backend.store.components import Components
from ml_backend.store.releases import Releases

LOOK_EVERY_S = 1.0

log = structlog.get_logger(__name__)


class ModelRegistry:
    """Resolves MODEL once at start, and what label configs ask for later.

    A context manager: entering resolves MODEL and starts one thread, leaving stops it.
    """

    def __init__(
        self,
        requested: str,
        resolve: Callable[[str], Component],
        components: Components,
        releases: Releases,
        *,
        device: str,
    ) -> None:
        self._requested = requested
        self._resolve = resolve
        self._components = components
        self._releases = releases
        self._device = device
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="models", daemon=True)

    def __enter__(self) -> ModelRegistry:
        try:
            component = self._resolve(self._requested)
        except ModelError as error:  # /health says why, and does not wait for ever
            self._components.record_problem(self._requested, error.message)
            raise
        self._components.record(self._requested, component, device=self._device)
        self._components.forget_others(self._requested)  # their files may have changed since
        release = self._releases.record_default(component, revision=POST_PROCESSING_REVISION)
        log.info(
            "model resolved",
            requested=self._requested,
            model=component.name,
            licence=component.licence,
            device=self._device,
            version=release.version,
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                self.resolve_wanted()
            except Exception:  # the thread must live on; the next round may do
                log.exception("models not looked for")

    def resolve_wanted(self) -> None:
        """Look for the models that label configs name and nobody has looked for yet.

        Raises:
            StoreError
        """
        for requested in self._components.wanted():
            try:
                component = self._resolve(requested)
            except (ModelError, EngineError) as error:
                log.warning("model not served", requested=requested, reason=error.message)
                self._components.record_problem(requested, error.message)
            else:
                self._components.record(requested, component, device=self._device)
                log.info("model resolved", requested=requested, model=component.name)
