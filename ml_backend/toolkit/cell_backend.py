"""The model class that the toolkit serves."""

from __future__ import annotations

from typing import Any

from ml_backend.toolkit.first_generation import let_models_name_their_version
from ml_backend.toolkit.incoming import Incoming, incoming
from ml_backend.toolkit.serving import Serving, is_development_server, serving

try:
    from label_studio_ml.model import LabelStudioMLBase as _Base
except ImportError:  # then it works alone, for tests and for servers of one's own
    _Base = object

IS_SECOND_GENERATION = hasattr(_Base, "use_label_config")
IS_FIRST_GENERATION = _Base is not object and not IS_SECOND_GENERATION

if IS_FIRST_GENERATION:
    let_models_name_their_version()
if is_development_server():
    serving()  # loads its networks before the first request, which waits three seconds at most


class CellBackend(_Base):  # type: ignore[misc]  # the toolkit has no types
    """Masks and classes for every control of the label config, under our version strings.

    With ML_BACKEND_URL set, a running backend of ours answers and learns from the events that are
    passed on to it. Without, this process loads the networks, and nothing is learned.
    """

    # 1.0.9 calls fit() for the events named here; its own list lacks the Start Training button
    TRAIN_EVENTS = (
        "ANNOTATION_CREATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATION_DELETED",
        "ANNOTATIONS_DELETED",
        "TASKS_CREATED",
        "TASKS_DELETED",
        "PROJECT_UPDATED",
        "START_TRAINING",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what either generation of the toolkit hands over."""
        self._version: str | None = None
        self._given = kwargs
        if _Base is object:
            self.label_config = kwargs.get("label_config")
        else:
            super().__init__(*args, **kwargs)

    def setup(self) -> None:
        """Name the served version, as the 2.x toolkit wants it; it makes a model a request."""
        request = incoming()
        if request is None or request.path == "/setup":
            self.set("model_version", self.served_version())

    def served_version(self) -> str:
        """Return the version that predictions of this label config carry.

        Raises:
            RuntimeError: the label config cannot be served, or nobody answers.
        """
        if self._version is None:
            self._version = self._serving.set_up(self._setup_body())
        return self._version

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> Any:
        """Return an entry for each task, {} where there is none in time."""
        body = {
            "tasks": tasks,
            "project": getattr(self, "project_id", None) or "",
            "label_config": self.label_config,
            "params": {**kwargs, "context": context},
            **self._body_of("/predict"),
        }
        if not body["label_config"]:
            body["label_config"] = self.label_config
        who = {name: self._given.get(name) for name in ("hostname", "access_token")}
        return list(self._serving.predict({**who, **body}))

    def fit(self, *given: Any, event: str | None = None, data: Any = None, **_: Any) -> Any:
        """Pass an event on; the learning loop is the backend's.

        1.0.9 calls it with tasks before the event, 2.x with event and data in their place.
        """
        if event is None and len(given) == 2:
            event, data = given
        if event is None or not isinstance(data, dict):
            return {}
        request = incoming()
        headers = request.headers if request is not None else {}
        return dict(self._serving.tell({**data, "action": event}, headers))

    @property
    def _serving(self) -> Serving:
        return serving()

    def _setup_body(self) -> dict[str, Any]:
        return {
            "project": getattr(self, "project_id", None) or "0",
            "schema": self.label_config,
            "hostname": self._given.get("hostname"),
            "access_token": self._given.get("access_token"),
            **self._body_of("/setup"),
        }

    @staticmethod
    def _body_of(path: str) -> dict[str, Any]:
        """Return what Label Studio itself has sent, where that request is in hand."""
        request: Incoming | None = incoming()
        return dict(request.body) if request is not None and request.path == path else {}
