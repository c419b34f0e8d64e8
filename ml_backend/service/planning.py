"""Decides which training sessions there shall be, and which of them have anything to learn."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ml_backend.domain import DefaultModels, LabelConfig, ProjectKey
from ml_backend.errors import BadRequest, ConfigError
from ml_backend.labelstudio.learning_options import read_learning_options
from ml_backend.labelstudio.targets import (
    AnyTarget,
    ChoicesTarget,
    find_target,
    requested_by,
    subject_of,
    targets_of,
)
from ml_backend.learning import LearningOptions, Session, SessionState, Trigger, TriggerPolicy
from ml_backend.service.change_counter import TASK_HASHES, ChangeCounter, count_changed, learned_by
from ml_backend.service.policy import LOOK_AGAIN_S, Decision, PolicyFacts, decide
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions

SUBJECT = "subject"
SAME_AS = "same_as"
"""Keys of a session's manifest: what it learned, and which session had learned it before."""

_CONFIGS_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a project's label config says about learning."""

    options: LearningOptions
    config: LabelConfig
    targets: tuple[AnyTarget, ...]


class Planner:
    """Requests sessions; safe for many threads and processes."""

    def __init__(
        self,
        *,
        models: DefaultModels,
        defaults: LearningOptions,
        parse: Callable[[str], LabelConfig],
        projects: Projects,
        ledger: AnnotationLedger,
        sessions: Sessions,
        versions: Versions,
        components: Components,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare it.

        Args:
            models: What the settings name, for controls that name nothing.
            defaults: How projects are trained that say nothing of it.
            parse: Reads label configs; raises ConfigError.
            projects, ledger, sessions, versions, components: The records.
            clock: Seconds since the epoch.
        """
        self._models = models
        self._projects = projects
        self._ledger = ledger
        self._sessions = sessions
        self._versions = versions
        self._components = components
        self._clock = clock
        self._changes = ChangeCounter(ledger, sessions)

        def read(label_config: str) -> Plan:
            config = parse(label_config)
            options, _ = read_learning_options(label_config, defaults)
            return Plan(options=options, config=config, targets=targets_of(config))

        self._read = lru_cache(maxsize=_CONFIGS_KEPT)(read)

    def request(
        self, project: ProjectKey, trigger: Trigger, *, owner: str | None = None
    ) -> list[Session]:
        """Queue a session for each of a project's networks, whatever the policy says.

        Raises:
            BadRequest: the project is unknown.
            ConfigError: its label config has nothing to train.
            StoreError
        """
        plan = self._plan(project)
        if plan is None:
            raise BadRequest(
                f"Project {project.project_id} is unknown here; connect it with `ml-backend "
                "connect`, then try again."
            )
        if not plan.targets:
            raise ConfigError(
                f"Project {project.project_id} has nothing to train: none of its controls "
                "outlines objects or chooses classes."
            )
        return [self._queue(project, target, plan, trigger, owner) for target in plan.targets]

    def consider(self, project: ProjectKey) -> Decision:
        """Queue sessions where the policy says so; return the decision, the soonest of several.

        Raises:
            StoreError
        """
        idle = Decision(
            train=False, reason="There is nothing to train.", look_again_in_s=LOOK_AGAIN_S
        )
        try:
            plan = self._plan(project)
        except ConfigError:
            return idle  # people see why in Label Studio; /setup refuses it
        if plan is None or not plan.targets:
            return idle
        if plan.options.policy.manual:
            return decide(plan.options.policy, _nothing_known(self._clock()))
        last_change = self._ledger.last_change(project)
        decisions = []
        for target in plan.targets:
            decision = self._decide(project, target, plan.options.policy, last_change)
            if decision.train:
                self._queue(project, target, plan, Trigger.POLICY, None)
            decisions.append(decision)
        return min(decisions, key=lambda one: (not one.train, one.look_again_in_s))

    def why_not_to_run(self, session: Session) -> str | None:
        """Return a sentence when a queued session has nothing to learn, None when it shall run.

        A session that has run before goes on in any case.

        Raises:
            StoreError
        """
        if session.started_at is not None:
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
            plan = self._plan(session.project)
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
            plan = self._plan(session.project)
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

    def _decide(
        self,
        project: ProjectKey,
        target: AnyTarget,
        policy: TriggerPolicy,
        last_change: float | None,
    ) -> Decision:
        last = self._sessions.last_ended(project, target.names, with_manifest=False)
        facts = PolicyFacts(
            now=self._clock(),
            annotated=sys.maxsize,
            changed=sys.maxsize,
            last_change=last_change,
            last_ended=None if last is None else last.finished_at,
            is_busy=self._is_busy(project, target),
        )
        at_best = decide(policy, facts)
        if not at_best.train:
            return at_best  # whatever has changed, which takes a while to find out
        found = self._changes.since(project, last, last_change=last_change)
        return decide(policy, replace(facts, annotated=found.annotated, changed=found.changed))

    def _is_busy(self, project: ProjectKey, target: AnyTarget) -> bool:
        names = set(target.names)
        return any(
            set(session.controls) == names
            for state in (SessionState.QUEUED, SessionState.RUNNING)
            for session in self._sessions.find(project, state, with_manifests=False)
        )

    def _queue(
        self,
        project: ProjectKey,
        target: AnyTarget,
        plan: Plan,
        trigger: Trigger,
        owner: str | None,
    ) -> Session:
        return self._sessions.request(
            project,
            controls=target.names,
            trigger=trigger,
            parameters=plan.options.parameters,
            owner=owner,
        )

    def _plan(self, project: ProjectKey) -> Plan | None:
        """Return what a project's label config says, None for a project that is unknown.

        Raises:
            ConfigError
        """
        found = self._projects.get(project)
        return None if found is None else self._read(found.label_config)


def _nothing_known(now: float) -> PolicyFacts:
    return PolicyFacts(
        now=now, annotated=0, changed=0, last_change=None, last_ended=None, is_busy=False
    )
