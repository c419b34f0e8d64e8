"""Tells which of the sessions that were asked for have anything new to learn."""

from __future__ import annotations

from collections.abc import Mapping

from ml_backend.domain import DefaultModels
from ml_backend.errors import ConfigError
from ml_backend.labelstudio.targets import (
    AnyTarget,
    ChoicesTarget,
    find_target,
    requested_by,
    subject_of,
)
from ml_backend.learning import Session, SessionState
from ml_backend.service.change_counter import TASK_HASHES, count_changed, learned_by
from ml_backend.service.plans import Plans
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions

SUBJECT = "subject"
SAME_AS = "same_as"
"""Keys of a session's manifest: what it learned, and which session had learned it before."""


class News:
    """Compares sessions with those before them; safe for many threads."""

    def __init__(
        self,
        plans: Plans,
        *,
        models: DefaultModels,
        ledger: AnnotationLedger,
        sessions: Sessions,
        versions: Versions,
        components: Components,
    ) -> None:
        self._plans = plans
        self._models = models
        self._ledger = ledger
        self._sessions = sessions
        self._versions = versions
        self._components = components

    def why_not_to_run(self, session: Session) -> str | None:
        """Return a sentence when a queued session has nothing to learn, None when it shall run.

        A session that has run before goes on in any case, and so does one that a person wants to
        start from another's checkpoint, or on a dataset.

        Raises:
            StoreError
        """
        if session.started_at is not None or session.dataset or session.restarted_from:
            return None
        hashes = self._ledger.task_hashes(session.project)
        if not hashes and self._can_cluster(session):
            return None
        if not hashes:
            return "Nobody has annotated a task of this project yet, so there is nothing to learn."
        last = self._sessions.last_ended(session.project, session.controls)
        if last is None or not self._learned_the_same(session, last, hashes):
            return None
        origin = self._origin_of(last)
        made = f", which made {origin.version}" if origin.version else ""
        return (
            f"No annotation has changed since session {origin.id}{made}; nothing was trained. "
            "Annotate more tasks or change a training option first."
        )

    def manifest_of_unchanged(self, session: Session) -> dict[str, object]:
        """Return the manifest of a session that does not run because nothing changed.

        Raises:
            StoreError
        """
        last = self._sessions.last_ended(session.project, session.controls)
        if last is None:
            return {}
        kept = {
            name: last.manifest[name] for name in (TASK_HASHES, SUBJECT) if name in last.manifest
        }
        return {**kept, SAME_AS: self._origin_of(last).id}

    def _can_cluster(self, session: Session) -> bool:
        """Return whether a session makes clusters of images that nobody has labelled."""
        try:
            plan = self._plans.of(session.project)
        except ConfigError:
            return True  # the session says what is wrong with it
        target = None if plan is None else find_target(plan.config, session.controls)
        return isinstance(target, ChoicesTarget) and target.shape is None

    def _learned_the_same(self, session: Session, last: Session, hashes: Mapping[int, str]) -> bool:
        if last.state is not SessionState.COMPLETED:
            return False  # people who ask again want another try
        learned = learned_by(last)
        if learned is None or count_changed(learned, hashes):
            return False
        if last.parameters != session.parameters:
            return False
        try:
            plan = self._plans.of(session.project)
        except ConfigError:
            return False  # the session says what is wrong with it
        target = None if plan is None else find_target(plan.config, session.controls)
        if plan is None or target is None:
            return False
        if SUBJECT in last.manifest and last.manifest[SUBJECT] != subject_of(target, plan.options):
            return False
        return self._has_same_base(self._origin_of(last), target)

    def _has_same_base(self, origin: Session, target: AnyTarget) -> bool:
        """Return whether a session started from the network that the target names now."""
        if origin.version is None or origin.parameters.from_active:
            return True
        version = self._versions.get(origin.project, origin.version)
        resolution = self._components.resolution(requested_by(target.controls[0], self._models))
        if version is None or resolution is None or resolution.component is None:
            return True
        return version.parent == resolution.component.name

    def _origin_of(self, session: Session) -> Session:
        """Return the session that learned what this one found unchanged."""
        same_as = session.manifest.get(SAME_AS)
        if not isinstance(same_as, str):
            return session
        return self._sessions.get(same_as, with_manifest=False) or session
