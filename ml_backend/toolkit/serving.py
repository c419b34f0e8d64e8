"""Where the predictions come from: a running backend of ours, or this very process."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

URL = "ML_BACKEND_URL"


class Serving(Protocol):
    """Answers for all projects of this toolkit server."""

    def set_up(self, body: Mapping[str, Any]) -> str:
        """Return the version of a /setup request; raises RuntimeError with a sentence."""
        ...

    def predict(self, body: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Return an entry for each task of a /predict request, {} where there is none."""
        ...

    def tell(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, Any]:
        """Pass an event on; return what came of it, JSON."""
        ...


_lock = threading.Lock()
_opened: list[Serving] = []


def serving() -> Serving:
    """Return where this process's predictions come from, the same at every call."""
    with _lock:
        if not _opened:
            _opened.append(_open())
        return _opened[0]


def _open() -> Serving:
    url = os.environ.get(URL, "").strip()
    if url:
        from ml_backend.toolkit.forwarding import Forwarding

        return Forwarding(
            url,
            user=os.environ.get("BASIC_AUTH_USER"),
            password=os.environ.get("BASIC_AUTH_PASS"),
            secret=os.environ.get("WEBHOOK_SECRET"),
        )
    from ml_backend.toolkit.in_process import InProcess

    return InProcess()


def is_development_server() -> bool:
    """Return whether this is the server of `label-studio-ml start`, and none of its children.

    It never forks. Behind gunicorn nothing may be loaded before the worker is there: a thread would
    not survive the fork, and CUDA breaks by it.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    is_child = multiprocessing.parent_process() is not None
    return main is not None and Path(main).name == "_wsgi.py" and not is_child
