"""Releases: immutable rows that say what a project serves, and one active pointer each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.orm import Session

from ml_backend.domain import Component, ProjectKey, Release
from ml_backend.errors import StoreError
from ml_backend.store.database import Database
from ml_backend.store.projects import parse_key
from ml_backend.store.schema import ActiveReleaseRow, ReleaseRow
from ml_backend.store.upsert import insert_if_new, insert_or_replace

DEFAULT_PROJECT = ProjectKey(origin="", project_id=0, created_at=0)
"""Stands for no project: its release is recorded by an engine once MODEL is resolved."""


def release_version(
    components: Mapping[str, Component], canonical_config: Mapping[str, Any], revision: str
) -> str:
    """Return the version string: the models' names and a hash of all that decides a prediction."""
    weights = {control: _identity(component) for control, component in components.items()}
    payload = orjson.dumps([weights, canonical_config, revision], option=orjson.OPT_SORT_KEYS)
    names = sorted({_readable(component.name) for component in components.values()})
    return f"{'+'.join(names) or 'none'}-{Release.digest(payload)}"


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """Which release a project serves, and since when: tells whether it was moved meanwhile."""

    version: str
    activated_at: float


class Releases:
    """The tables of releases and active pointers."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def ensure(
        self,
        project: ProjectKey,
        *,
        components: Mapping[str, Component],
        canonical_config: Mapping[str, Any],
        label_config: str,
        revision: str,
    ) -> Release:
        """Return the release of these inputs, made if it is new.

        The same inputs give the same version, in every process and every project.

        Args:
            project: Whose release it is.
            components: By control name.
            canonical_config: All that decides a prediction, as `labelstudio.controls` reads it.
            label_config: The XML, for people and for an engine that must parse it again.
            revision: Of the post-processing.

        Raises:
            StoreError
        """
        version = release_version(components, canonical_config, revision)
        known = self.by_version(project, version)
        if known is not None and _same_components(known.components, components):
            return known
        packed = _pack(components)
        values = {
            "project": str(project),
            "version": version,
            "components": packed,
            "label_config": label_config,
            "canonical_config": orjson.dumps(canonical_config, option=orjson.OPT_SORT_KEYS),
            "revision": revision,
            "created_at": self._clock(),
        }
        with self._database.write() as session:
            insert_if_new(session, ReleaseRow, values)
            row = session.get_one(ReleaseRow, (str(project), version))
            row.components = packed  # the same weights may have moved
            return _to_release(row)

    def record_default(self, component: Component, *, revision: str) -> Release:
        """Record and activate the release that says "MODEL is resolved"; engines call it at start.

        Raises:
            StoreError
        """
        release = self.ensure(
            DEFAULT_PROJECT,
            components={"": component},
            canonical_config={},
            label_config="",
            revision=revision,
        )
        self.activate(DEFAULT_PROJECT, release.version)
        return release

    def active(self, project: ProjectKey) -> Release | None:
        """Return what `project` serves, None before its first release.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            pointer = session.get(ActiveReleaseRow, str(project))
            if pointer is None:
                return None
            row = session.get(ReleaseRow, (str(project), pointer.version))
            return None if row is None else _to_release(row)

    def all_active(self) -> dict[ProjectKey, Release]:
        """Return what every project serves, `DEFAULT_PROJECT` included.

        Raises:
            StoreError
        """
        query = select(ReleaseRow).join(
            ActiveReleaseRow,
            (ActiveReleaseRow.project == ReleaseRow.project)
            & (ActiveReleaseRow.version == ReleaseRow.version),
        )
        with self._database.read() as session:
            rows = session.scalars(query.order_by(ReleaseRow.project))
            return {parse_key(row.project): _to_release(row) for row in rows}

    def pointer(self, project: ProjectKey) -> Pointer | None:
        """Return the active pointer of `project` as it is now, for `activate_after`.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            return _pointer(session, project)

    def activate_after(self, project: ProjectKey, version: str, pointer: Pointer | None) -> bool:
        """Make `project` serve `version`, unless the pointer has moved since `pointer` was read.

        Writes only on change. False: someone was faster, and nothing was written.

        Raises:
            StoreError: there is no such release.
        """
        if pointer is not None and pointer.version == version:
            return self.pointer(project) == pointer
        with self._database.write() as session:
            if _pointer(session, project, lock=True) != pointer:
                return False
            self._point(session, project, version)
            return True

    def activate(self, project: ProjectKey, version: str) -> None:
        """Make `project` serve `version`, one of its releases; writes only on change.

        Raises:
            StoreError: there is no such release.
        """
        with self._database.read() as session:
            pointer = session.get(ActiveReleaseRow, str(project))
            if pointer is not None and pointer.version == version:
                return
        with self._database.write() as session:
            self._point(session, project, version)

    def _point(self, session: Session, project: ProjectKey, version: str) -> None:
        if session.get(ReleaseRow, (str(project), version)) is None:
            known = ", ".join(_versions(session, project)) or "none"
            raise StoreError(f"Project {project} has no release {version!r}; it has: {known}.")
        pointer_values = {
            "project": str(project),
            "version": version,
            "activated_at": self._clock(),
        }
        insert_or_replace(session, ActiveReleaseRow, pointer_values)

    def versions(self, project: ProjectKey) -> list[str]:
        """Return the versions of `project`, newest first.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            return _versions(session, project)

    def by_version(self, project: ProjectKey, version: str) -> Release | None:
        """Return that release, None if there is none.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            row = session.get(ReleaseRow, (str(project), version))
            return None if row is None else _to_release(row)


def _pointer(session: Session, project: ProjectKey, *, lock: bool = False) -> Pointer | None:
    row = session.get(ActiveReleaseRow, str(project), with_for_update=lock)
    return None if row is None else Pointer(version=row.version, activated_at=row.activated_at)


def _versions(session: Session, project: ProjectKey) -> list[str]:
    query = (
        select(ReleaseRow.version)
        .where(ReleaseRow.project == str(project))
        .order_by(ReleaseRow.created_at.desc(), ReleaseRow.version)
    )
    return list(session.scalars(query))


def _readable(name: str) -> str:
    # a checkpoint's file name may hold anything; the version goes into addresses and selectors
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:60] or "model"


def _same_components(one: Mapping[str, Component], other: Mapping[str, Component]) -> bool:
    return dict(one) == dict(other)


def _identity(component: Component) -> str | list[Any]:
    # what a network was fine-tuned on decides the scale at which it looks
    if component.diameter is None:
        return component.sha256
    return [component.sha256, component.diameter]


def _pack(components: Mapping[str, Component]) -> bytes:
    packed = {control: asdict(component) for control, component in components.items()}
    return orjson.dumps(packed, option=orjson.OPT_SORT_KEYS)


def _to_release(row: ReleaseRow) -> Release:
    return Release(
        version=row.version,
        components={
            control: Component(**fields) for control, fields in orjson.loads(row.components).items()
        },
        label_config=row.label_config,
        project=parse_key(row.project),
    )
