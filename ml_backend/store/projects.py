"""The projects that Label Studio has introduced in /setup requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select

from ml_backend.domain import ProjectKey
from ml_backend.errors import StoreError
from ml_backend.store.database import Database
from ml_backend.store.schema import ProjectRow
from ml_backend.store.upsert import insert_or_replace

SEEN_EVERY_S = 60.0  # last_seen is not written more often


@dataclass(frozen=True, kw_only=True)
class Project:
    """What is known of a project."""

    key: ProjectKey
    hostname: str | None  # of Label Studio, as its /setup gave it
    access_token: str | None = field(repr=False)  # legacy token of the project's creator
    label_config: str  # XML
    label_config_error: str | None  # a sentence, when it cannot be served
    last_seen: float


class Projects:
    """The table of projects."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def record(
        self,
        key: ProjectKey,
        *,
        hostname: str | None,
        access_token: str | None,
        label_config: str,
        label_config_error: str | None = None,
    ) -> Project:
        """Keep what a /setup request said; writes only when that is new.

        Raises:
            StoreError
        """
        now = self._clock()
        project = Project(
            key=key,
            hostname=hostname,
            access_token=access_token,
            label_config=label_config,
            label_config_error=label_config_error,
            last_seen=now,
        )
        with self._database.read() as session:
            row = session.get(ProjectRow, str(key))
            known = None if row is None else _to_project(row)
        if known is not None and _is_news_free(known, project):
            return known
        with self._database.write() as session:
            insert_or_replace(
                session,
                ProjectRow,
                {
                    "key": str(key),
                    "origin": key.origin,
                    "project_id": key.project_id,
                    "created_at": key.created_at,
                    "hostname": hostname,
                    "access_token": access_token,
                    "label_config": label_config,
                    "label_config_error": label_config_error,
                    "last_seen": now,
                },
            )
        return project

    def get(self, key: ProjectKey | str) -> Project | None:
        """Return the project of that key (or its text), None if unknown.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.get(ProjectRow, str(key))
            return None if row is None else _to_project(row)

    def find(self, project: str) -> Project | None:
        """Return the project that Label Studio calls "<id>.<created_at>", None if unknown.

        When two Label Studios have one of that name, the one seen last.

        Raises:
            StoreError
        """
        parsed = parse_project(project)
        if parsed is None:
            return None
        project_id, created_at = parsed
        query = (
            select(ProjectRow)
            .where(ProjectRow.project_id == project_id, ProjectRow.created_at == created_at)
            .order_by(ProjectRow.last_seen.desc())
            .limit(1)
        )
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else _to_project(row)

    def latest(self) -> Project | None:
        """Return the project seen last, None before the first.

        Raises:
            StoreError
        """
        query = select(ProjectRow).order_by(ProjectRow.last_seen.desc()).limit(1)
        with self._database.read() as session:
            row = session.scalar(query)
            return None if row is None else _to_project(row)

    def all(self) -> list[Project]:
        """Return every project, the one seen last first.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            rows = session.scalars(select(ProjectRow).order_by(ProjectRow.last_seen.desc()))
            return [_to_project(row) for row in rows]


def parse_project(project: str) -> tuple[int, int] | None:
    """Return (id, created_at) of Label Studio's "<id>.<created_at>", None if it is not one."""
    project_id, _, created_at = project.partition(".")
    created_at = created_at or "0"
    if not (project_id + created_at).isascii() or max(len(project_id), len(created_at)) > 18:
        return None
    if not (project_id.isdigit() and created_at.isdigit()):
        return None
    return int(project_id), int(created_at)


def parse_key(text: str) -> ProjectKey:
    """Return the key whose text this is.

    Raises:
        StoreError: it is no key's text.
    """
    origin, mark, project = text.rpartition("#")
    parsed = parse_project(project)
    if not mark or parsed is None:
        raise StoreError(f"{text!r} names no project; write it like http://host:8080#7.1795215681.")
    return ProjectKey(origin=origin, project_id=parsed[0], created_at=parsed[1])


def _is_news_free(known: Project, project: Project) -> bool:
    same = (
        known.hostname == project.hostname
        and known.access_token == project.access_token
        and known.label_config == project.label_config
        and known.label_config_error == project.label_config_error
    )
    return same and project.last_seen - known.last_seen < SEEN_EVERY_S


def _to_project(row: ProjectRow) -> Project:
    return Project(
        key=ProjectKey(origin=row.origin, project_id=row.project_id, created_at=row.created_at),
        hostname=row.hostname,
        access_token=row.access_token,
        label_config=row.label_config,
        label_config_error=row.label_config_error,
        last_seen=row.last_seen,
    )
