"""How a session makes its version, and asks for it to be served: each once, however often tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ml_backend.domain import Component, ProjectKey
from ml_backend.learning import (
    Activation,
    Origin,
    Session,
    SessionState,
    Version,
    VersionState,
    origin_of,
)
from ml_backend.model_files.version_folders import Publication, Publisher
from ml_backend.training.outcome import Outcome
from ml_backend.training.publishing import version_name
from ml_backend.training.session_log import SessionLog

TAKE = "take"  # in a version's metrics: the controls that it was better for


class VersionRecords(Protocol):
    """The part of the versions' records that a session writes to."""

    def next_number(self, project: ProjectKey) -> int:
        """Return a number that no other version gets."""
        ...

    def get(self, project: ProjectKey, name: str) -> Version | None:
        """Return that version."""
        ...

    def add(self, version: Version) -> None:
        """Keep a new one."""
        ...

    def history(self, project: ProjectKey) -> list[Activation]:
        """Return the changes of what the project serves."""
        ...

    def request(
        self,
        project: ProjectKey,
        *,
        components: Mapping[str, Component],
        reason: str,
        origins: Mapping[str, Origin],
    ) -> Activation:
        """Ask the engines for a change."""
        ...


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a session has made and wants to be kept as a version."""

    weights: Path
    start: Component  # what it was started from
    named_after: str  # the first part of the version's name
    diameter: float | None
    facts: Mapping[str, Any] = field(repr=False)  # for the manifest
    metrics: Mapping[str, Any]  # for the records
    take: tuple[str, ...]  # the controls that it shall be served for; empty: only if asked
    sentence: str  # what is to be said of it
    base_requested: str | None
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class VersionMaker:
    """Makes the version of one session."""

    session: Session
    publisher: Publisher
    versions: VersionRecords
    journal: SessionLog
    clock: Callable[[], float] = time.time

    def made_before(self) -> Version | None:
        """Return the version that an earlier try of this session has recorded."""
        if self.session.version is None:
            return None
        version = self.versions.get(self.session.project, self.session.version)
        is_ours = version is not None and version.session_id == self.session.id
        return version if is_ours else None

    def make(self, made: Made) -> Version:
        """Return the new version, in its folder and in the records.

        Raises:
            CheckpointInvalid: what was written cannot be read back.
            OSError: the disk is full or cannot be written; nothing is left behind.
            SessionLost, StoreError
        """
        session = self.session
        name = session.version
        while True:
            if name is None:
                number = self.versions.next_number(session.project)
                name = version_name(made.named_after, session.project, number)
                self.journal.keep_version(name)
            publication = Publication(
                name=name,
                session_id=session.id,
                weights=made.weights,
                parent=made.start,
                architecture=made.start.architecture,
                licence=made.start.licence,
                diameter=made.diameter,
                facts=made.facts,
                pictures=made.pictures,
            )
            try:
                component = self.publisher.publish(session.project, publication)
                break
            except FileExistsError:
                name = None  # a folder of earlier records has it; the next number may do
        version = Version(
            project=session.project,
            name=name,
            state=VersionState.CANDIDATE,  # whoever serves it knows when it is published
            controls=session.controls,
            component=component,
            session_id=session.id,
            parent=made.start.name,
            created_at=self.clock(),
            metrics={**made.metrics, "promote": bool(made.take), TAKE: list(made.take)},
            message=made.sentence,
            base_requested=made.base_requested,
        )
        self.versions.add(version)
        return version

    def conclude(self, version: Version) -> Outcome:
        """Ask for the version to be served if it may be, once; return the session's end."""
        if version.metrics.get("promote"):
            asked = (  # by name: an earlier version can have had the very same weights
                origin.version_name
                for activation in self.versions.history(version.project)
                for origin in activation.origins.values()
                if origin.version_project in (None, version.project)
            )
            if version.name not in asked:
                controls = version.metrics.get(TAKE) or version.controls
                self.versions.request(
                    version.project,
                    components=dict.fromkeys(controls, version.component),
                    reason=f"Session {self.session.id} trained {version.name}.",
                    origins=dict.fromkeys(controls, origin_of(version)),
                )
        return Outcome(
            state=SessionState.COMPLETED,
            message=version.message or f"{version.name} was trained.",
            version=version.name,
        )
