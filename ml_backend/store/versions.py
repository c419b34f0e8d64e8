"""Trained networks of each project, and through `Activations` what of them is served."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, delete, select

from ml_backend.domain import ProjectKey
from ml_backend.errors import StoreError
from ml_backend.learning import Version, VersionState
from ml_backend.store.activation_rows import Serving
from ml_backend.store.activations import Activations
from ml_backend.store.packing import component_from_json, component_to_json, from_json, to_json
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import VersionNumberRow, VersionRow
from ml_backend.store.upsert import insert_if_new

__all__ = ["Serving", "Versions"]


class Versions(Activations):
    """The table of trained networks; what is served of them changes by activations."""

    def next_number(self, project: ProjectKey) -> int:
        """Return a number for a new version that no other session gets: 1, 2, 3...

        A session notes the name that it makes of it at once, so that it keeps it when it is
        resumed; a number that was asked for and not used is missing from the list.

        Raises:
            StoreError
        """
        key = str(project)
        with self._database.write() as session:
            insert_if_new(session, VersionNumberRow, {"project": key, "last": 0})
            row = session.get_one(VersionNumberRow, key, with_for_update=True)
            row.last += 1
            return row.last

    def add(self, version: Version) -> None:
        """Keep a new version; adding the very same weights again changes nothing.

        Raises:
            StoreError: the project has another version of that name.
        """
        with self._database.write() as session:
            if insert_if_new(session, VersionRow, _values(version)):
                return
            row = session.get_one(VersionRow, (str(version.project), version.name))
            if _to_version(row).component.sha256 != version.component.sha256:
                raise StoreError(
                    f"Project {version.project} has another version {version.name!r}; give the "
                    "new one a name of its own."
                )

    def get(self, project: ProjectKey, name: str) -> Version | None:
        """Return that version, None if there is none.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.get(VersionRow, (str(project), name))
            return None if row is None else _to_version(row)

    def all(self, project: ProjectKey) -> list[Version]:
        """Return the versions of `project`, the newest first.

        Raises:
            StoreError
        """
        return self._newest_first(select(VersionRow).where(VersionRow.project == str(project)))

    def named(self, name: str) -> list[Version]:
        """Return the versions of that name, of whatever project, the newest first.

        Raises:
            StoreError
        """
        query = select(VersionRow).where(VersionRow.name == name)
        return self._newest_first(query)

    def of_all_projects(self) -> list[Version]:
        """Return every version, the newest first.

        Raises:
            StoreError
        """
        return self._newest_first(select(VersionRow))

    def set_state(
        self, project: ProjectKey, name: str, state: VersionState, message: str | None = None
    ) -> None:
        """Note what became of a version; `message` None leaves what was said, "" takes it back.

        Raises:
            StoreError: there is no such version.
        """
        with self._database.write() as session:
            row = session.get(VersionRow, (str(project), name), with_for_update=True)
            if row is None:
                raise StoreError(
                    f"Project {project} has no version {name!r}; `ml-backend models list` "
                    "shows them."
                )
            row.state = state
            row.message = row.message if message is None else message or None

    def delete(self, project: ProjectKey, name: str) -> bool:
        """Forget a version; False when there is none. Its folder is the caller's.

        Raises:
            StoreError
        """
        statement = delete(VersionRow).where(
            VersionRow.project == str(project), VersionRow.name == name
        )
        with self._database.write() as session:
            return session.scalar(statement.returning(VersionRow.name)) is not None

    def _newest_first(self, query: Select[VersionRow]) -> list[Version]:
        ordered = query.order_by(VersionRow.created_at.desc(), VersionRow.name, VersionRow.project)
        with self._database.read() as session:
            return [_to_version(row) for row in session.scalars(ordered)]


def _values(version: Version) -> dict[str, Any]:
    return {
        "project": str(version.project),
        "name": version.name,
        "state": version.state,
        "controls": to_json(list(version.controls)),
        "component": to_json(component_to_json(version.component)),
        "session_id": version.session_id,
        "parent": version.parent,
        "created_at": version.created_at,
        "metrics": to_json(version.metrics),
        "message": version.message,
        "base_requested": version.base_requested,
    }


def _to_version(row: VersionRow) -> Version:
    return Version(
        project=parse_key(row.project),
        name=row.name,
        state=VersionState(row.state),
        controls=tuple(from_json(row.controls)),
        component=component_from_json(from_json(row.component)),
        session_id=row.session_id,
        parent=row.parent,
        created_at=row.created_at,
        metrics=from_json(row.metrics),
        message=row.message,
        base_requested=row.base_requested,
    )
