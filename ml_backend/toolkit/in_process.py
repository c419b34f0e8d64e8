"""This process predicts: the toolkit's server loads the networks itself.

It needs our whole package beside the toolkit, and no records, engine or trainer; so nothing is
learned here.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_backend.service.unrecorded import UnrecordedPredictions

SETUP_PATIENCE_S = 2.0  # Label Studio gives /setup three
_NOT_LEARNED = "Nothing is learned in the toolkit's process; set ML_BACKEND_URL for that."

log = logging.getLogger(__name__)

_open: list[AbstractContextManager[UnrecordedPredictions]] = []


class InProcess:
    """The networks of this process, loaded in the background; safe for many threads."""

    def __init__(self) -> None:
        """Begin to load them."""
        self._lock = threading.Lock()
        self._loading: tuple[int, Future[UnrecordedPredictions]] | None = None  # of which process
        self._loaded()

    def set_up(self, body: Mapping[str, Any]) -> str:
        """Return the version of a label config.

        Raises:
            RuntimeError: it cannot be served, or the networks are still being loaded.
        """
        predictions = self._within(SETUP_PATIENCE_S)
        if predictions is None:
            raise RuntimeError("The networks are still being loaded; try again in a few seconds.")
        from ml_backend.errors import BackendError

        try:
            return predictions.release(str(body.get("schema") or "")).version
        except BackendError as error:
            raise RuntimeError(error.message) from None

    def predict(self, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Return an entry for each task, {} where there is none in time."""
        from ml_backend.errors import BackendError

        try:
            predictions = self._loaded().result()
            return predictions.predict(
                body["tasks"],
                str(body.get("label_config") or ""),
                hostname=body.get("hostname"),
                access_token=body.get("access_token"),
            )
        except BackendError as error:
            log.error("Without predictions: %s", error.message)
            return [{}] * len(body["tasks"])

    def tell(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        """Say that nothing comes of an event here."""
        del body, headers
        return {"status": "ignored", "message": _NOT_LEARNED}

    def _within(self, timeout_s: float) -> UnrecordedPredictions | None:
        from ml_backend.errors import BackendError

        try:
            return self._loaded().result(timeout=timeout_s)
        except FutureTimeout:
            return None
        except BackendError as error:
            raise RuntimeError(error.message) from None

    def _loaded(self) -> Future[UnrecordedPredictions]:
        """Return what this process loads, begun where it has not."""
        with self._lock:
            if self._loading is None or self._loading[0] != os.getpid():
                future: Future[UnrecordedPredictions] = Future()
                self._loading = os.getpid(), future
                threading.Thread(target=_load, args=(future,), name="load", daemon=True).start()
            return self._loading[1]


def _load(future: Future[UnrecordedPredictions]) -> None:
    try:
        from ml_backend.bootstrap.unrecorded import open_unrecorded

        opened = open_unrecorded()
        _open.append(opened)  # for as long as the process lives
        future.set_result(opened.__enter__())
    except BaseException as error:  # whoever waits is told
        log.error("The networks cannot be loaded: %s", error)
        future.set_exception(error)
