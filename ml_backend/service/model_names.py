"""Finds the trained or uploaded network that a name stands for, wherever a model is named.

A version is named by its own name, by `<project>/<name>` where several projects have one so
named, or by the id of the session that made it. Nothing here imports a network library.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml_backend.datasets import is_dataset
from ml_backend.domain import ProjectKey
from ml_backend.errors import Conflict, ModelError, ModelNotFound
from ml_backend.learning import UPLOADS, Session, Version, VersionState
from ml_backend.model_files.known import AUTO
from ml_backend.service.project_names import is_named
from ml_backend.store.database import Database
from ml_backend.store.datasets import Datasets
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions

UPLOADED = "uploads"
"""What stands for a project in front of the name of an uploaded model."""

_SESSION = re.compile(r"[0-9a-f]{8,32}")  # an id, or enough of its beginning
_SHOWN = 20  # names in a sentence
_SHOWN_CHARS = 200  # of what was asked for


class ModelNames:
    """Knows what trained and uploaded networks are called."""

    def __init__(self, database: Database, *, others: Sequence[str] = ()) -> None:
        """Keep the records.

        Args:
            database: The records.
            others: Names of models that are no versions, for messages: those that are built in.
        """
        self._versions = Versions(database)
        self._sessions = Sessions(database)
        self._datasets = Datasets(database)
        self._others = tuple(others)

    def find(self, name: str) -> Version | None:
        """Return the version of that name, None where no version is called so.

        Args:
            name: A version's name, `<project>/<name>`, or the id of a session (or its beginning).

        Raises:
            ModelNotFound: several are called so, or the session has made none.
            StoreError
        """
        found = self.matches(name)
        if len(found) > 1:
            raise ModelNotFound(
                f"Several models are called {name[:_SHOWN_CHARS]!r}; name one of them: "
                f"{_listed([self.full_name(version) for version in found])}."
            )
        return found[0] if found else self._made_by(name)

    def usable(self, name: str) -> Version | None:
        """Return the version of that name like `find`, unless it must not be used.

        Raises:
            ModelNotFound, StoreError: as `find`.
            ModelError: it cannot be loaded, or was put away.
        """
        version = self.find(name)
        if version is not None and version.state is VersionState.REFUSED:
            raise ModelError(
                f"The model {version.name!r} cannot be used: {version.message or 'it is damaged.'}"
            )
        if version is not None and version.state is VersionState.ARCHIVED:
            raise ModelError(
                f"The model {version.name!r} was put away; name another one, or train again."
            )
        return version

    def matches(self, name: str) -> list[Version]:
        """Return every version that a name or `<project>/<name>` stands for, the newest first.

        Raises:
            StoreError
        """
        if "\0" in name:  # PostgreSQL takes no text with it
            return []
        found = self._versions.named(name)
        project, slash, last = name.rpartition("/")
        if found or not slash:
            return found
        return [one for one in self._versions.named(last) if self.is_of(one.project, project)]

    def full_name(self, version: Version) -> str:
        """Return `<project>/<name>`, which names a version without doubt.

        Raises:
            StoreError
        """
        return f"{self.project_name(version.project)}/{version.name}"

    def project_name(self, key: ProjectKey) -> str:
        """Return what stands in front of the names of a project's versions.

        Raises:
            StoreError
        """
        if key == UPLOADS:
            return UPLOADED
        dataset = self._datasets.by_key(key)
        return str(key) if dataset is None else dataset.name

    def unknown(self, name: str) -> ModelNotFound:
        """Return the error of a name that nothing is called, which says what there is.

        Raises:
            StoreError
        """
        usable = (VersionState.CANDIDATE, VersionState.PUBLISHED)
        trained = [one.name for one in self._versions.of_all_projects() if one.state in usable]
        return ModelNotFound(
            f"There is no model or file {name[:_SHOWN_CHARS]!r}; use one of "
            f"{_listed([*self._others, *trained])}, the id of a session that made one, or the path "
            "of a checkpoint on the engine's machine."
        )

    def refuse_taken(self, name: str) -> None:
        """Refuse a name for a new model that something else is called.

        Raises:
            Conflict: it is taken.
            StoreError
        """
        if name in (AUTO, UPLOADED, *self._others) or self._versions.named(name):
            raise Conflict(f"There is a model {name!r} already; choose another name.")

    def is_of(self, key: ProjectKey, name: str) -> bool:
        """Return whether that is what a project, a dataset or the uploads are called.

        Raises:
            StoreError
        """
        if key == UPLOADS:
            return name in (UPLOADED, str(key))
        if is_dataset(key):
            return name in (self.project_name(key), str(key))
        return is_named(key, name)

    def _made_by(self, name: str) -> Version | None:
        if not _SESSION.fullmatch(name):
            return None
        sessions = self._sessions.beginning_with(name)
        if len(sessions) > 1:
            raise ModelNotFound(f"Several sessions begin with {name!r}; write more of the id.")
        if not sessions:  # its model stays when a session is deleted
            made_by = [
                one
                for one in self._versions.of_all_projects()
                if one.session_id is not None and one.session_id.startswith(name)
            ]
            return made_by[0] if len(made_by) == 1 else None
        (session,) = sessions
        made = session.version and self._versions.get(session.project, session.version)
        if not made:
            raise ModelNotFound(_made_nothing(session))
        return made


def _made_nothing(session: Session) -> str:
    said = f" ({session.message.rstrip('.')})" if session.message else ""
    return f"Session {session.id} is {session.state} and has made no model{said}; name another."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
