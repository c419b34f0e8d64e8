"""Decides which training sessions of projects there shall be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ml_backend.domain import DefaultModels, LabelConfig, ProjectKey
from ml_backend.errors import BadRequest, ConfigError, Conflict, TrainingError
from ml_backend.labelstudio.targets import (
    AnyTarget,
    ChoicesTarget,
    requested_by,
)
from ml_backend.learning import (
    LearningOptions,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
    TriggerPolicy,
)
from ml_backend.recipes import recipe_for
from ml_backend.service.change_counter import ChangeCounter
from ml_backend.service.news import News
from ml_backend.service.plans import Plan, Plans
from ml_backend.service.policy import LOOK_AGAIN_S, Decision, PolicyFacts, decide
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.store.versions import Versions


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person wants of a training, other than what is usual for its subject."""

    parameters: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainingParameters
    label: str | None = None  # a word of the person's own


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
        self._ledger = ledger
        self._sessions = sessions
        self._components = components
        self._clock = clock
        self._changes = ChangeCounter(ledger, sessions)
        self._plans = Plans(projects, parse, defaults)
        self._news = News(
            self._plans,
            models=models,
            ledger=ledger,
            sessions=sessions,
            versions=versions,
            components=components,
        )

    def request(
        self,
        project: ProjectKey,
        trigger: Trigger,
        *,
        owner: str | None = None,
        wishes: Wishes | None = None,
    ) -> list[Session]:
        """Queue a session for each of a project's networks, whatever the policy says.

        One that is queued already is returned instead of a second.

        Args:
            project: To be trained.
            trigger: What asks for it.
            owner: Name of the token that asks.
            wishes: What the caller wants other than the label config says.

        Raises:
            BadRequest: the project is unknown, or a network cannot be trained so.
            Conflict: one that is queued already does not do as the caller wishes.
            ConfigError: its label config has nothing to train.
            StoreError
        """
        plan = self._plans.of(project)
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
        if wishes is None:
            return [self._queue(project, target, plan, trigger, owner) for target in plan.targets]
        parameters = replace(plan.options.parameters, **wishes.parameters)
        for target in plan.targets:
            self._check(target, parameters)
        for waiting in self._sessions.find(project, SessionState.QUEUED, with_manifests=False):
            if any(set(target.names) == set(waiting.controls) for target in plan.targets):
                _require_as_wished(waiting, parameters, wishes)
        begun = [
            self._sessions.request(
                project,
                controls=target.names,
                trigger=trigger,
                parameters=parameters,
                owner=owner,
                label=wishes.label,
            )
            for target in plan.targets
        ]
        for session in begun:  # one may have been queued since the look above
            _require_as_wished(session, parameters, wishes)
        return begun

    def _check(self, target: AnyTarget, parameters: TrainingParameters) -> None:
        """Refuse what a network cannot be trained with, where it is known already which it is.

        Raises:
            BadRequest, StoreError
        """
        if isinstance(target, ChoicesTarget):
            return
        base = self._components.resolved(requested_by(target.controls[0], self._models))
        if base is not None:
            check_recipe(base.architecture, parameters)

    def consider(self, project: ProjectKey) -> Decision:
        """Queue sessions where the policy says so; return the decision, the soonest of several.

        Raises:
            StoreError
        """
        idle = Decision(
            train=False, reason="There is nothing to train.", look_again_in_s=LOOK_AGAIN_S
        )
        try:
            plan = self._plans.of(project)
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

        Raises:
            StoreError
        """
        return self._news.why_not_to_run(session)

    def manifest_of_unchanged(self, session: Session) -> dict[str, object]:
        """Return the manifest of a session that does not run because nothing changed.

        Raises:
            StoreError
        """
        return self._news.manifest_of_unchanged(session)

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


def check_recipe(architecture: str, parameters: TrainingParameters) -> None:
    """Refuse parameters that networks of an architecture cannot be trained with.

    Raises:
        BadRequest
    """
    try:
        recipe_for(architecture, parameters, images=1)
    except TrainingError as error:
        raise BadRequest(error.message) from error


def _require_as_wished(session: Session, parameters: TrainingParameters, wishes: Wishes) -> None:
    if session.parameters != parameters or session.label != wishes.label:
        raise Conflict(
            f"Session {session.id} of the same controls waits already, with other parameters or "
            "another label; stop that one first, or start without any."
        )


def _nothing_known(now: float) -> PolicyFacts:
    return PolicyFacts(
        now=now, annotated=0, changed=0, last_change=None, last_ended=None, is_busy=False
    )
