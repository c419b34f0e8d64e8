"""Changes what a project serves, without anybody waiting: the engine's half of a hot swap.

An activation is a row that any engine may claim. Its steps can each be repeated: an engine that
is killed at any of them leaves the old release served, and another one begins again. The networks
are loaded, verified and tried beside those that answer meanwhile; only then is the pointer
written. Every call names its release, so what was asked before the switch is answered by the old
networks, which are let go of when their last request has ended.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from ml_backend.domain import Component, LabelStudioAccess, ProjectKey, Release
from ml_backend.errors import (
    BackendError,
    ConfigError,
    EngineError,
    EngineUnavailable,
    LabelStudioError,
    ModelError,
)
from ml_backend.learning import Activation, ActivationState, Version, VersionState
from ml_backend.service.ahead import Ahead, PredictionStock
from ml_backend.service.change import Change, NotAskedFor, change_for
from ml_backend.service.releasing import Releasing
from ml_backend.service.repair import Repairs
from ml_backend.service.swap import ShowsVersions, flip
from ml_backend.store.projects import Projects
from ml_backend.store.versions import Versions

LOOK_EVERY_S = 1.0
LEASE_S = 15.0  # an activation whose engine died is taken over after this long
RENEW_EVERY_S = 5.0
AT_ONCE = 4  # projects that change at the same time
LABEL_STUDIO_PAUSES_S = (2.0, 5.0)  # between attempts; then it is done without Label Studio
# Between attempts at an activation that fails for a reason that may pass: a full device, a label
# config in the middle of an edit. After the last it has failed.
RETRY_PAUSES_S = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
FAILURE = " It could not be put into service: "  # in a version's message, before the reason

log = structlog.get_logger(__name__)


class SwapsVersions(ShowsVersions, PredictionStock, Protocol):
    """The part of the Label Studio client that an activation needs."""


class _LeaseLost(BackendError):
    """Another engine has taken the activation over."""


class _Refused(ModelError):
    """The network cannot be served, ever."""


@dataclass(frozen=True, kw_only=True)
class ActivationTools:
    """What an activation is made with; `bootstrap` fills it in."""

    projects: Projects
    versions: Versions
    releasing: Releasing
    prove: Callable[[Component], object]  # load, verify, try; raises ModelError, EngineError
    ahead: Ahead
    repairs: Repairs
    label_studio: Callable[[ProjectKey], SwapsVersions | None]  # None: no credentials
    access: Callable[[ProjectKey], LabelStudioAccess]  # for images


class Activator:
    """Takes requested activations, one at a time for each project.

    A context manager: entering starts its threads, leaving stops them after the step in hand.
    """

    def __init__(self, tools: ActivationTools) -> None:
        self._own = tools
        self._owner = uuid.uuid4().hex
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._claimed: set[int] = set()  # activations in work here, whose leases are renewed
        self._threads = [
            threading.Thread(target=self._watch, name="activations", daemon=True),
            threading.Thread(target=self._renew, name="activation-leases", daemon=True),
        ]

    def __enter__(self) -> Activator:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def work(self) -> int:
        """Carry out every activation that is due, here and now; return how many were claimed.

        Raises:
            StoreError
        """
        claimed = self._claim(AT_ONCE)
        for activation in claimed:
            self._carry_out_or_log(activation)
        return len(claimed)

    def _claim(self, most: int) -> list[Activation]:
        claimed = []
        for due in self._own.versions.due(limit=most):
            activation = self._own.versions.claim(due.id, self._owner, LEASE_S)
            if activation is not None:
                claimed.append(activation)
                with self._lock:
                    self._claimed.add(activation.id)
        return claimed

    def _carry_out_or_log(self, activation: Activation) -> None:
        try:
            self._carry_out(activation)
        except EngineUnavailable as error:
            log.info("activation waits", activation=activation.id, reason=error.message)
        except (_Refused, NotAskedFor) as error:
            self._give_up(activation, error)
        except (ModelError, ConfigError, EngineError) as error:
            self._postpone(activation, error)
        except BackendError as error:  # the lease runs out, then it is begun again
            log.warning("activation interrupted", activation=activation.id, reason=error.message)
        except Exception as error:  # a thread that died silently would leave a project behind
            log.exception("activation failed unexpectedly", activation=activation.id)
            self._postpone(activation, EngineError(f"It failed unexpectedly ({error!r:.300})."))
        finally:
            with self._lock:
                self._claimed.discard(activation.id)

    def _carry_out(self, activation: Activation) -> None:
        key = activation.project
        project = self._own.projects.get(key)
        if project is None:
            raise ConfigError(
                f"Label Studio has not introduced the project {key} yet; open it there once."
            )
        releasing = self._own.releasing
        change = change_for(activation, releasing.parse(project.label_config), releasing.asked)
        release = self._warm(activation, change, project.label_config)
        note = ". ".join([*change.notes, self._show_ahead(activation, release)])
        self._keep_on(activation)
        self._own.versions.mark(
            activation.id, self._owner, ActivationState.WARMED, message=note.rstrip(".") + "."
        )
        # before the switch, so that no death in between leaves it out
        self._note_published(key, change)
        self._own.versions.switch(
            activation,
            overrides=change.overrides,
            release_version=release.version,
            owner=self._owner,
        )
        log.info("version switched", project=str(key), version=release.version, note=note)
        self._own.repairs.follow_swap(key)
        current = self._own.projects.get(key)
        if current is not None and current.label_config != project.label_config:
            # the label config was changed meanwhile: its /setup came before the switch
            self._own.releasing.activate(key, current.label_config)

    def _warm(self, activation: Activation, change: Change, label_config: str) -> Release:
        """Return the release to be, every network of it loaded, verified and tried.

        Raises:
            ConfigError, ModelError, EngineError, StoreError
        """
        made = self._own.releasing.make(
            activation.project,
            label_config,
            changed=change.components,
            removed=change.removed,
        )
        for component in dict.fromkeys(made.release.components.values()):
            self._keep_on(activation)
            self._prove(activation, component)
        with self._own.repairs.between_looks():  # a look under way would undo the flip
            self._own.versions.mark(
                activation.id,
                self._owner,
                ActivationState.WARMED,
                release=made.release.version,
            )
        return made.release

    def _prove(self, activation: Activation, component: Component) -> None:
        try:
            self._own.prove(component)
        except ModelError as error:
            if component not in activation.components.values():
                raise
            for version in self._versions_of(activation):
                if version.component == component:
                    self._own.versions.set_state(
                        version.project, version.name, VersionState.REFUSED, error.message
                    )
            raise _Refused(error.message) from error

    def _show_ahead(self, activation: Activation, release: Release) -> str:
        """Have Label Studio show the new version's predictions; return what became of it.

        Raises:
            StoreError
        """
        label_studio = self._own.label_studio(activation.project)
        if label_studio is None:
            return "Label Studio asks again by itself: there are no credentials for it"
        for pause_s in (*LABEL_STUDIO_PAUSES_S, None):
            try:
                return self._show(label_studio, activation, release)
            except LabelStudioError as error:
                log.warning("Label Studio did not take part", reason=error.message)
                reason = error.message
            if pause_s is not None and self._closing.wait(pause_s):
                raise _LeaseLost
        return f"Label Studio follows later: {reason}"

    def _show(self, label_studio: SwapsVersions, activation: Activation, release: Release) -> str:
        key = activation.project
        if label_studio.project(key.project_id).created_at != key.created_at:
            return "Label Studio has another project under this number"
        stocked = self._own.ahead.stock(
            label_studio,
            key,
            release,
            self._own.access(key),
            go_on=lambda: self._keep_on(activation),
        )
        self._keep_on(activation)
        if not stocked.held:  # Label Studio takes no version of which it has no prediction
            return stocked.sentence()
        shown = flip(label_studio, key, release.version, self._own.releasing.releases.versions(key))
        return stocked.sentence() + ("" if shown else "; the project shows other predictions")

    def _keep_on(self, activation: Activation) -> None:
        if self._closing.is_set():
            raise _LeaseLost("The engine stops; the activation is begun again by the next one.")
        with self._lock:
            if activation.id not in self._claimed:
                raise _LeaseLost

    def _postpone(self, activation: Activation, error: BackendError) -> None:
        """Have it tried again later, unless that was done often or another change waits."""
        if activation.attempts >= len(RETRY_PAUSES_S):
            self._give_up(activation, error)
            return
        pause_s = RETRY_PAUSES_S[activation.attempts]
        try:
            postponed = self._own.versions.postpone(
                activation.id,
                self._owner,
                pause_s=pause_s,
                message=f"It is tried again after {pause_s:.0f} s: {error.message}",
            )
        except BackendError as problem:
            log.warning("activation not postponed", reason=problem.message)
            return
        if postponed:
            log.warning("activation postponed", activation=activation.id, reason=error.message)
        else:
            self._give_up(activation, error)

    def _give_up(self, activation: Activation, error: BackendError) -> None:
        log.warning("activation failed", activation=activation.id, reason=error.message)
        try:
            self._own.versions.mark(
                activation.id, self._owner, ActivationState.FAILED, message=error.message
            )
            for version in self._versions_of(activation):
                if version.state is not VersionState.REFUSED:  # that says why already
                    self._own.versions.set_state(
                        version.project,
                        version.name,
                        version.state,
                        message=_without_failure(version) + FAILURE + error.message,
                    )
        except BackendError as problem:
            log.warning("activation not marked as failed", reason=problem.message)

    def _note_published(self, project: ProjectKey, change: Change) -> None:
        served = change.overrides.keys() & change.components.keys()
        for serving in {change.overrides[control] for control in served}:
            version = self._own.versions.get(
                serving.version_project or project, serving.version_name
            )
            if version is not None:
                self._own.versions.set_state(
                    version.project,
                    version.name,
                    VersionState.PUBLISHED,
                    message=_without_failure(version),
                )

    def _versions_of(self, activation: Activation) -> list[Version]:
        named = {
            (origin.version_project or activation.project, origin.version_name)
            for origin in activation.origins.values()
        }
        found = (self._own.versions.get(project, name) for project, name in named)
        return [version for version in found if version is not None]

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                with self._lock:
                    free = AT_ONCE - len(self._claimed)
                for activation in self._claim(free) if free > 0 else ():
                    # a daemon: it may wait for Label Studio longer than a stop may take
                    threading.Thread(
                        target=self._carry_out_or_log,
                        args=(activation,),
                        name=f"activation-{activation.id}",
                        daemon=True,
                    ).start()
            except Exception:  # the thread must live on; the next round may do
                log.exception("activations not looked for")

    def _renew(self) -> None:
        while not self._closing.wait(RENEW_EVERY_S):
            with self._lock:
                held = list(self._claimed)
            for number in held:
                try:
                    kept = self._own.versions.renew(number, self._owner, LEASE_S)
                except BackendError as error:  # the next round may do
                    log.warning("lease not renewed", activation=number, reason=error.message)
                    continue
                if not kept:
                    with self._lock:
                        self._claimed.discard(number)


def _without_failure(version: Version) -> str:
    """Return what a version's message says besides an earlier failure to serve it."""
    return (version.message or "").partition(FAILURE)[0]
