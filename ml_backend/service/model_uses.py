"""Why a version must stay: who serves it, who is about to, and which session starts from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_backend.domain import ProjectKey
from ml_backend.errors import CheckpointInvalid, ModelNotFound
from ml_backend.learning import Session, SessionState, Version, VersionState
from ml_backend.model_files.headers import safetensors_header
from ml_backend.service.model_names import ModelNames
from ml_backend.store.releases import DEFAULT_PROJECT, Releases
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions

_MOST_SESSIONS = 10_000
_BASE_PATH = "base_path"  # in the metadata of a file of adapters (engines.lora)


@dataclass(frozen=True, kw_only=True)
class ModelUses:
    """Finds what needs a version."""

    versions: Versions
    releases: Releases
    sessions: Sessions
    names: ModelNames

    def of(self, version: Version, *, files_stay: bool = False) -> str | None:
        """Return why it must stay and what to do about it, None where nobody needs it.

        Args:
            version: Which one.
            files_stay: Whether only its name goes out of use, and not its weights.

        Raises:
            StoreError
        """
        uses = self._all(version) if files_stay else self._all_of_its_files(version)
        return next(uses, None)

    def _all_of_its_files(self, version: Version) -> Iterator[str]:
        yield from self._all(version)
        yield from self._adapters(version)

    def _all(self, version: Version) -> Iterator[str]:
        yield from self._serving(version)
        yield from self._changes(version)
        yield from self._asked_for(version)
        for state in (SessionState.QUEUED, SessionState.RUNNING):
            for session in self.sessions.find(
                state=state, limit=_MOST_SESSIONS, with_manifests=False
            ):
                if self._starts_from(session, version):
                    yield (
                        f"session {session.id}, which is {session.state}, starts from it; wait "
                        "until it has ended, or stop it"
                    )

    def _serving(self, version: Version) -> Iterator[str]:
        for project, serving in self.versions.served_everywhere().items():
            controls = [
                control
                for control, served in serving.items()
                if served.version_name == version.name
                and (served.version_project or project) == version.project
            ]
            if controls:
                yield (
                    f"project {project.project_id} serves it for {', '.join(controls)}; roll back "
                    "or activate another one first"
                )

    def _changes(self, version: Version) -> Iterator[str]:
        for activation in self.versions.under_way():
            if any(one.path == version.component.path for one in activation.components.values()):
                yield (
                    f"change {activation.id} is about to serve it in project "
                    f"{activation.project.project_id}; wait until that is done, then roll back"
                )

    def _asked_for(self, version: Version) -> Iterator[str]:
        for project, release in self.releases.all_active().items():
            controls = [
                control
                for control, component in release.components.items()
                if component.path == version.component.path
            ]
            if controls and project == DEFAULT_PROJECT:
                yield "the setting MODEL names it; change that and start the engine again"
            elif controls:
                yield (
                    f"the label config of project {project.project_id} asks for it in "
                    f"{', '.join(controls)}; change its model_name first"
                )

    def _starts_from(self, session: Session, version: Version) -> bool:
        if session.base is not None and self._is(session.base, version):
            return True
        if session.restarted_from is not None:
            before = self.sessions.get(session.restarted_from, with_manifest=False)
            if before is not None and (before.project, before.version) == _identity(version):
                return True
        # which one it started from stands in its folder, perhaps on another machine
        was_served = version.state is VersionState.PUBLISHED
        return session.parameters.from_active and session.project == version.project and was_served

    def _is(self, name: str, version: Version) -> bool:
        try:
            found = self.names.find(name)
        except ModelNotFound:
            return False
        return found is not None and _identity(found) == _identity(version)

    def _adapters(self, version: Version) -> Iterator[str]:
        for other in self.versions.of_all_projects():
            if other.parent != version.name or _identity(other) == _identity(version):
                continue
            try:
                metadata = safetensors_header(Path(other.component.path))[1]
            except CheckpointInvalid:
                continue
            if metadata.get(_BASE_PATH) == version.component.path:
                yield (
                    f"the model {other.name!r} holds adapters (LoRA) that only work on top of it; "
                    "delete that one first"
                )


def _identity(version: Version) -> tuple[ProjectKey, str]:
    return version.project, version.name
