"""`client.sessions`: trainings."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from ml_backend.client.answers import path_of, read_answer
from ml_backend.client.call import Call
from ml_backend.client.connection import Connection
from ml_backend.client.downloads import download
from ml_backend.client.pages import PAGE_SIZE, all_pages, read_page
from ml_backend.client.point import Point
from ml_backend.client.session_debug import SessionDebug
from ml_backend.client.session_event import SessionEvent
from ml_backend.client.session_info import SessionInfo
from ml_backend.client.session_stream import SessionStream
from ml_backend.client.training_options import DatasetLayout, TrainingOptions
from ml_backend.errors import BadRequest
from ml_backend.learning import SessionState

SESSIONS_PATH = "/api/v1/sessions"
MAX_MANIFEST_BYTES = 1_000_000_000
_LOOK_EVERY_S = 30.0  # where no event arrives, because a proxy holds them back


class SessionCalls:
    """Starts, follows and ends trainings."""

    def __init__(self, connection: Connection) -> None:
        """Keep the connection."""
        self._connection = connection

    def start(
        self,
        *,
        project: str | int | None = None,
        dataset: str | Path | None = None,
        layout: DatasetLayout | None = None,
        model: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[TrainingOptions],
    ) -> tuple[SessionInfo, ...]:
        """Start trainings and return them: one for each network of a project, one for a dataset.

        Args:
            project: Number or key of a Label Studio project.
            dataset: Instead: a folder on the server, the address of a zip or tar archive, or the
                name of a dataset that was trained on before.
            layout: Where in the dataset the images and masks lie; None = as Cellpose has them.
            model: To start from: a model's name or a session's id; None = as configured.
            idempotency_key: The same key starts the same training once; None = a new one.
            **options: See `TrainingOptions`.

        Raises:
            BadRequest: neither project nor dataset is named, or both, or an option is not known.
            NotFound: there is no such project, dataset or model.
            Forbidden: the token may not train.
        """
        if (project is None) == (dataset is None):
            raise BadRequest("Name either a project or a dataset to train on.")
        if layout is not None and dataset is None:
            raise BadRequest("Only a dataset has a layout; a project's images are where they are.")
        body: dict[str, Any] = {
            **_known(TrainingOptions, options),
            **_known(DatasetLayout, layout or {}),
        }
        body |= {"project": project} if dataset is None else {"artifact": str(dataset)}
        if model is not None:
            body["model"] = model
        content = self._start(SESSIONS_PATH, body, idempotency_key)
        return read_page(content, SessionInfo).items

    def restart(
        self,
        session_id: str,
        *,
        n_epochs: int | None = None,
        idempotency_key: str | None = None,
    ) -> SessionInfo:
        """Start a new session that begins with what an old one has learned.

        Args:
            session_id: Of the old one.
            n_epochs: Of the new one; None = as many as the old one was to have.
            idempotency_key: The same key starts the same training once; None = a new one.

        Raises:
            NotFound: there is no such session.
            Conflict: it has no checkpoint, or has not ended.
        """
        path = SESSIONS_PATH + path_of(session_id, "restart")
        content = self._start(path, {"n_epochs": n_epochs}, idempotency_key)
        return read_answer(content, SessionInfo)

    def get(self, session_id: str) -> SessionInfo:
        """Return how far a session is.

        Raises:
            NotFound: there is none of that id, or beginning of an id.
        """
        return read_answer(self._get(session_id), SessionInfo)

    def find(
        self,
        *,
        status_types: Sequence[str] = (),
        datasets: Sequence[str] = (),
        labels: Sequence[str] = (),
        project: str | int | None = None,
        state: SessionState | None = None,
        owner: str | None = None,
        page_size: int = PAGE_SIZE,
    ) -> Iterator[SessionInfo]:
        """Yield sessions, newest first, asking for a page at a time.

        Args:
            status_types: Only these: queued, running, stopped, completed, failed, unknown.
            datasets: Only those that learn from one of these datasets.
            labels: Only those with one of these labels.
            project: Only those of this project.
            state: Only those in this state; those running include the ones of unknown status.
            owner: Only those that this token started.
            page_size: Sessions in one request.
        """
        query = {
            "status_types": tuple(status_types),
            "dataset": tuple(datasets),
            "label": tuple(labels),
            "project": None if project is None else str(project),
            "state": state,
            "owner": owner,
        }
        return all_pages(self._connection, SESSIONS_PATH, query, SessionInfo, page_size=page_size)

    def stop(self, session_id: str) -> SessionInfo:
        """Ask a session to stop; its checkpoint stays.

        Raises:
            NotFound: there is no such session.
            Conflict: it has ended.
        """
        return self._steer(session_id, "stop")

    def resume(self, session_id: str) -> SessionInfo:
        """Go on with a session that was stopped or has failed.

        Raises:
            NotFound: there is no such session.
            Conflict: it was neither stopped nor did it fail.
        """
        return self._steer(session_id, "resume")

    def delete(self, session_id: str) -> None:
        """Delete a session that has ended, with its checkpoint; its model stays.

        Raises:
            NotFound: there is no such session.
            Conflict: it has not ended.
            Forbidden: it is another's.
        """
        self._connection.ask(Call(method="DELETE", path=SESSIONS_PATH + path_of(session_id)))

    def debug(self, session_id: str) -> SessionDebug:
        """Return why a session is in the state it is in.

        Raises:
            NotFound: there is no such session.
        """
        return read_answer(self._get(session_id, "debug"), SessionDebug)

    def manifest(self, session_id: str) -> Mapping[str, Any]:
        """Return what a session was made of: tasks or files, images and their split.

        Raises:
            NotFound: there is no such session.
        """
        content = self._get(session_id, "manifest", max_bytes=MAX_MANIFEST_BYTES)
        return read_answer(content, dict[str, Any])

    def curves(self, session_id: str) -> tuple[Point, ...]:
        """Return the curves of a session, a point for each epoch; none before the first.

        Raises:
            NotFound: there is no such session.
        """
        content = self._get(session_id, "curves")
        by_epoch = read_answer(content, dict[int, Point])
        return tuple(replace(point, epoch=epoch) for epoch, point in sorted(by_epoch.items()))

    def picture(self, session_id: str, output: Path | str) -> Path:
        """Write the curves of a session as a PNG file and return its path.

        Raises:
            NotFound: there is no such session.
            BadRequest: it cannot be written there.
        """
        path = SESSIONS_PATH + path_of(session_id, "curves.png")
        call = Call(method="GET", path=path, is_repeatable=True)
        return download(self._connection, call, output, default_name="curves.png")

    def curves_file(self, session_id: str, output: Path | str) -> Path:
        """Write the curves of a session as a JSON file, keyed by epoch, and return its path.

        Raises:
            NotFound: there is no such session.
            BadRequest: it cannot be written there.
        """
        path = SESSIONS_PATH + path_of(session_id, "curves")
        call = Call(method="GET", path=path, is_repeatable=True)
        return download(self._connection, call, output, default_name="curves.json")

    def events(
        self, session_id: str, *, after: str | None = None, patience_s: float = 120.0
    ) -> Iterator[SessionEvent]:
        """Yield what happens in a session as it happens; the last event has the kind END.

        Where the connection breaks it is made anew, and nothing is told twice.

        Args:
            session_id: Of the session.
            after: Id of an event, to go on after it; None = from the beginning.
            patience_s: For how long to try again while the server is not there.

        Raises:
            NotFound: there is no such session.
            ServerUnreachable: the server is not there for longer than `patience_s`.
        """
        stream = self._stream(session_id, after, patience_s)
        return (event for event in stream.events() if event is not None)

    def wait(
        self,
        session_id: str,
        *,
        timeout_s: float | None = None,
        on_event: Callable[[SessionEvent], None] | None = None,
        patience_s: float = 120.0,
    ) -> SessionInfo:
        """Return a session once it has ended, however it ended.

        Args:
            session_id: Of the session.
            timeout_s: For how long to wait; None = for ever.
            on_event: Is told what happens meanwhile.
            patience_s: For how long to try again while the server is not there.

        Raises:
            NotFound: there is no such session.
            TimeoutError: it has not ended in time.
            ServerUnreachable: the server is not there for longer than `patience_s`.
        """
        started = heard = time.monotonic()
        for event in self._stream(session_id, None, patience_s).events():
            now = time.monotonic()
            if event is not None:
                heard = now
                if on_event is not None:
                    on_event(event)
            elif now - heard > _LOOK_EVERY_S:
                heard = now
                if self.get(session_id).has_ended:
                    break
            if timeout_s is not None and now - started > timeout_s:
                raise TimeoutError(
                    f"Session {session_id} has not ended within {timeout_s:g} s; it goes on."
                )
        return self.get(session_id)

    def _start(self, path: str, body: Mapping[str, Any], key: str | None) -> bytes:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._connection.ask(
            Call(method="POST", path=path, body=body, headers=headers, is_repeatable=True)
        )

    def _get(self, *names: str, max_bytes: int | None = None) -> bytes:
        call = Call(method="GET", path=SESSIONS_PATH + path_of(*names), is_repeatable=True)
        if max_bytes is None:
            return self._connection.ask(call)
        return self._connection.ask(call, max_bytes=max_bytes)

    def _steer(self, session_id: str, verb: str) -> SessionInfo:
        call = Call(method="POST", path=SESSIONS_PATH + path_of(session_id, verb))
        return read_answer(self._connection.ask(call), SessionInfo)

    def _stream(self, session_id: str, after: str | None, patience_s: float) -> SessionStream:
        path = SESSIONS_PATH + path_of(session_id, "events")
        return SessionStream(self._connection, path, after=after, patience_s=patience_s)


def _known(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    names = kind.__annotations__
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise BadRequest(f"There is no option {unknown[0]!r}; there are {', '.join(names)}.")
    return {name: value for name, value in given.items() if value is not None}
