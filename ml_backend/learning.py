"""The nouns of the learning loop: annotations, splits, sessions, versions; frozen data only.

Times are seconds since the epoch unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ml_backend.domain import Component, ProjectKey


class Side(StrEnum):
    """On which side of the split a group of tasks stays, for ever."""

    TRAINING = "training"
    HOLD_OUT = "hold_out"


class Trigger(StrEnum):
    """What asked for a session."""

    POLICY = "policy"
    START_TRAINING = "start_training"  # the button in Label Studio
    PERSON = "person"  # the command line or our API


class SessionState(StrEnum):
    """How far a training session has come."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class SessionStatus(StrEnum):
    """A session's state as people ask for it: one whose trainer is gone is told apart."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    UNKNOWN = "unknown"  # running, but its trainer was not heard of for as long as its lease


ENDED = frozenset({SessionState.COMPLETED, SessionState.FAILED, SessionState.STOPPED})
"""States in which nobody works on a session."""

TRANSITIONS: Mapping[SessionState, frozenset[SessionState]] = {
    SessionState.QUEUED: frozenset({SessionState.RUNNING, SessionState.STOPPED}),
    SessionState.RUNNING: ENDED | {SessionState.RUNNING},  # again: by another trainer
    SessionState.COMPLETED: frozenset(),
    SessionState.FAILED: frozenset({SessionState.QUEUED}),  # resumed
    SessionState.STOPPED: frozenset({SessionState.QUEUED}),  # resumed
}
"""Which state may follow which."""


class Promotion(StrEnum):
    """Whether a candidate that passes the gate is served without a person's word."""

    AUTO = "auto"
    ALWAYS = "always"  # whatever the gate says, as long as it can be loaded
    NEVER = "never"


class Multiple(StrEnum):
    """Which annotations of a task count when several people have annotated it."""

    LATEST = "latest"  # a ground truth if there is one, else the one updated last
    ALL = "all"  # each is an example of its own, weighing one together


class VersionState(StrEnum):
    """What became of a trained version."""

    CANDIDATE = "candidate"  # kept, not served
    PUBLISHED = "published"  # served now or at some time
    REFUSED = "refused"  # it cannot be loaded, or its checksum is wrong
    ARCHIVED = "archived"


@dataclass(frozen=True, kw_only=True)
class LabelledTask:
    """A task with what training needs of it."""

    task_id: int
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """An annotation as the ledger keeps it: the newest state that was heard of."""

    task_id: int
    annotation_id: int
    updated_at: float
    cancelled: bool = False  # a skipped task
    ground_truth: bool = False
    completed_by: int | None = None
    parent_prediction: int | None = None  # the prediction that the person was shown
    result: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    content_hash: str = ""  # of all that decides what is learned from it; set by the ledger


@dataclass(frozen=True, kw_only=True)
class TriggerPolicy:
    """When a project is trained without being asked."""

    manual: bool = False  # only when asked
    new_tasks: int = 10  # annotated or changed since the last session
    quiet_s: float = 60.0  # since the last annotation
    pause_s: float = 300.0  # since the end of the last session
    min_tasks: int = 3  # annotated, in all


@dataclass(frozen=True, kw_only=True)
class TrainingParameters:
    """How a network is fine-tuned; None = the network's own default (`recipes`)."""

    n_epochs: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    batch_size: int | None = None  # crops per step
    n_samples: int | None = None  # crops per epoch; None = by default and the number of images
    crop: int | None = None  # edge of a crop in network pixels
    validation_interval: int | None = None  # epochs between scores on the hold-out
    min_train_masks: int = 1  # a training image with fewer instances is left out unless it is empty
    max_minutes: float | None = None  # of training; the schedule ends with it
    patience: int | None = None  # scores without a rise before it stops early
    clahe: bool | None = None  # None = as the control predicts
    rescale: bool = True  # resize images so that objects have the network's diameter
    from_active: bool = False  # start from the served version instead of the base network
    lora_rank: int = 0  # of adapters on a transformer; 0 = train all weights
    leave_out_unfinished: bool = False  # tasks with far fewer objects than the base finds
    multiple: Multiple = Multiple.LATEST
    seed: int = 0

    def canonical(self) -> dict[str, Any]:
        """Return a JSON-able mapping that is equal exactly when the parameters are."""
        return {
            name: (value.value if isinstance(value, StrEnum) else value)
            for name in self.__dataclass_fields__
            for value in (getattr(self, name),)
        }


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """What a label config's root tag and the settings say about learning."""

    policy: TriggerPolicy = field(default_factory=TriggerPolicy)
    promotion: Promotion = Promotion.AUTO
    parameters: TrainingParameters = field(default_factory=TrainingParameters)
    roi_label: str | None = None  # of rectangles that say which part of an image is finished
    group_field: str | None = None  # in task data: well, slide, movie; None = the image itself


@dataclass(frozen=True, kw_only=True)
class EpochPoint:
    """One point of a session's curves."""

    epoch: int  # from 1
    step: int
    loss: float  # mean over the epoch's training crops
    learning_rate: float  # at the epoch's end
    validation_loss: float | None = None  # on the hold-out; None = not measured this epoch
    precision: tuple[float, float, float] | None = None  # AP at 0.5, 0.75, 0.9 on the hold-out
    # precision, recall, F1 and IoU of the pixels of objects, on the test set; None = not measured
    pixels: tuple[float, float, float, float] | None = None
    seconds: float = 0.0  # of training until here


@dataclass(frozen=True, kw_only=True)
class Session:
    """A training session as it is recorded."""

    id: str
    project: ProjectKey
    state: SessionState
    trigger: Trigger
    controls: tuple[str, ...]  # names of the controls that one network is trained for
    owner: str | None  # a token's name, for sessions that a person started
    parameters: TrainingParameters
    created_at: float
    started_at: float | None
    finished_at: float | None
    heartbeat_at: float | None
    lease: int  # grows with each claim; writes with an older one are refused
    stop_requested: bool
    attempts: int  # how often it was claimed
    message: str | None  # for a person: what came of it, or why it failed
    version: str | None  # name of the version it made
    progress: Mapping[str, Any]  # epoch, epochs, step, eta_s, phase
    report: Mapping[str, Any]  # what was left out, the gate's numbers, notes
    manifest: Mapping[str, Any] = field(repr=False)  # tasks, annotations, hashes, split
    dataset: str | None = None  # name of a dataset; None = about a Label Studio project
    label: str | None = None  # a word of the person's own, e.g. "cells"
    base: str | None = None  # the model asked for; None = what the controls ask for
    restarted_from: str | None = None  # id of the session whose checkpoint it starts from
    lease_owner: str | None = None  # name of the trainer that claimed it last
    lease_until: float = 0.0  # without another heartbeat; then others may claim it

    def status_at(self, now: float) -> SessionStatus:
        """Return its status at a time, seconds since the epoch."""
        if self.state is SessionState.RUNNING and self.lease_until <= now:
            return SessionStatus.UNKNOWN
        return SessionStatus(self.state.value)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to write to a session, until someone else claims it."""

    session_id: str
    number: int
    owner: str


UPLOADS = ProjectKey(origin="upload", project_id=0, created_at=0)
"""Stands for a project where versions name one: theirs that people have uploaded."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A trained network of a project or a dataset, or one that was uploaded."""

    project: ProjectKey
    name: str  # e.g. "nuclei-1-p3-v2", unique in the project
    state: VersionState
    controls: tuple[str, ...]
    component: Component
    session_id: str | None
    parent: str  # name of the network it was started from
    created_at: float
    metrics: Mapping[str, Any]  # the gate's numbers
    message: str | None = None  # why it is kept as a candidate, or refused
    base_requested: str | None = None  # what its controls asked for then (`targets.asked_by`)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a network that is to be served comes from."""

    version_name: str  # of the `Version`: two can have the very same weights
    base_requested: str | None  # what a control must ask for to get it; None: not known
    version_project: ProjectKey | None = None  # whose version; None: the project's that serves it


def origin_of(version: Version) -> Origin:
    """Return the origin of a version's network."""
    return Origin(version_name=version.name, base_requested=version.base_requested)


class ActivationState(StrEnum):
    """How far the change of what a project serves has come."""

    REQUESTED = "requested"
    WARMED = "warmed"  # an engine has loaded, verified and tried every network
    DONE = "done"  # the pointer is written
    FAILED = "failed"  # the release before it goes on being served


@dataclass(frozen=True, kw_only=True)
class Activation:
    """A change of what a project serves."""

    id: int
    project: ProjectKey
    state: ActivationState
    release: str | None  # version string, once it is known
    components: Mapping[str, Component]  # control -> network; a control not in it keeps its own
    removed: tuple[str, ...]  # controls that go back to their base network
    reason: str  # a sentence: which session, which person
    message: str | None
    created_at: float
    finished_at: float | None
    origins: Mapping[str, Origin] = field(default_factory=dict)  # control -> of its network
    is_rollback: bool = False  # restores what was served, whatever the controls ask for by now
    attempts: int = 0  # that came to nothing for a reason that may pass
