"""The tables, as SQLAlchemy models; `migrations/` holds the steps that make them.

Times are seconds since the epoch. Texts that name a project are `str(ProjectKey)`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Double

_RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only INTEGER keys


class Base(DeclarativeBase):
    """The tables' common ground."""


class ProjectRow(Base):
    """A Label Studio project that was seen in a /setup request."""

    __tablename__ = "projects"
    __table_args__ = (Index("projects_by_id", "project_id", "created_at", "last_seen"),)

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    origin: Mapped[str] = mapped_column(Text)
    project_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger)
    hostname: Mapped[str | None] = mapped_column(Text)  # as /setup gave it
    access_token: Mapped[str | None] = mapped_column(Text)  # secret
    label_config: Mapped[str] = mapped_column(Text)
    label_config_error: Mapped[str | None] = mapped_column(Text)
    last_seen: Mapped[float] = mapped_column(Double)


class ComponentRow(Base):
    """What a requested model resolved to, or why it cannot be served."""

    __tablename__ = "components"

    requested: Mapped[str] = mapped_column(Text, primary_key=True)  # MODEL or a model option
    name: Mapped[str | None] = mapped_column(Text)  # None: not resolved
    architecture: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(Text)
    path: Mapped[str | None] = mapped_column(Text)
    licence: Mapped[str | None] = mapped_column(Text)
    diameter: Mapped[float | None] = mapped_column(Double)  # pixels, of a fine-tuned network
    device: Mapped[str | None] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)  # a sentence; None while nobody has looked
    wanted: Mapped[bool] = mapped_column(Boolean, server_default=false())  # engines shall look
    recorded_at: Mapped[float] = mapped_column(Double)


class ReleaseRow(Base):
    """An immutable release of a project."""

    __tablename__ = "releases"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[str] = mapped_column(Text, primary_key=True)
    components: Mapped[bytes] = mapped_column(LargeBinary)  # JSON: control -> component
    label_config: Mapped[str] = mapped_column(Text)
    canonical_config: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    revision: Mapped[str] = mapped_column(Text)  # of the post-processing
    created_at: Mapped[float] = mapped_column(Double)


class ActiveReleaseRow(Base):
    """Which release a project serves: one row each."""

    __tablename__ = "active_releases"
    __table_args__ = (
        ForeignKeyConstraint(["project", "version"], ["releases.project", "releases.version"]),
    )

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[str] = mapped_column(Text)
    activated_at: Mapped[float] = mapped_column(Double)


class PredictionRow(Base):
    """A kept prediction, or the claim of an engine that computes it."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("predictions_by_use", "state", "used_at", "size"),
        Index("predictions_undelivered", "project", "version", "state", "delivered"),
    )

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    version: Mapped[str] = mapped_column(Text, primary_key=True)
    input_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text)  # pending, done, failed
    owner: Mapped[str] = mapped_column(Text)  # the engine that claimed it last
    lease_until: Mapped[float] = mapped_column(Double)  # of a pending one
    retry_at: Mapped[float] = mapped_column(Double)  # of a failed one
    used_at: Mapped[float] = mapped_column(Double)
    delivered: Mapped[bool] = mapped_column(default=False)  # Label Studio was given it
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of `entry`
    message: Mapped[str | None] = mapped_column(Text)  # why it failed
    entry: Mapped[bytes | None] = mapped_column(LargeBinary)  # zlib-compressed JSON


class OpenRequestRow(Base):
    """A task of a /predict request whose answer Label Studio may not have stored yet."""

    __tablename__ = "open_requests"
    __table_args__ = (Index("open_requests_by_task", "project", "version", "task_id"),)

    request_id: Mapped[str] = mapped_column(Text, primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    project: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[float] = mapped_column(Double, index=True)


class EventRow(Base):
    """A webhook event as it came."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("content_hash", name="events_content_hash"),
        Index("events_by_state", "state", "id"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    job: Mapped[str] = mapped_column(Text, unique=True)  # what /job_status asks for
    project: Mapped[str | None] = mapped_column(Text)  # key; of those that wait for a toolkit class
    origin: Mapped[str | None] = mapped_column(Text)  # of Label Studio, where `connect` named it
    project_id: Mapped[int | None] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)  # queued, waiting, done, failed
    message: Mapped[str | None] = mapped_column(Text)
    session: Mapped[str | None] = mapped_column(Text)  # that a START_TRAINING led to
    content_hash: Mapped[str] = mapped_column(Text)
    received_at: Mapped[float] = mapped_column(Double)
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of `payload`
    payload: Mapped[bytes] = mapped_column(LargeBinary)  # zlib-compressed body


class LedgerTaskRow(Base):
    """A task that an annotation was heard of for, or the trace of a deleted one."""

    __tablename__ = "ledger_tasks"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    task_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    updated_at: Mapped[float] = mapped_column(Double)  # by Label Studio's clock; 0: no data yet
    seen_at: Mapped[float] = mapped_column(Double)  # newest snapshot that had it; 0: none
    removed_at: Mapped[float | None] = mapped_column(Double)  # newest word of its deletion
    heard_at: Mapped[float] = mapped_column(Double)  # by our clock: the last change of this row
    data_hash: Mapped[str] = mapped_column(Text)
    data: Mapped[bytes | None] = mapped_column(LargeBinary)  # zlib-compressed JSON; None: unknown


class LedgerAnnotationRow(Base):
    """The newest state of an annotation, or the trace of a deleted one."""

    __tablename__ = "ledger_annotations"
    __table_args__ = (Index("ledger_annotations_by_task", "project", "task_id"),)

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    annotation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    task_id: Mapped[int | None] = mapped_column(BigInteger)  # None: only its deletion is known
    alive: Mapped[bool] = mapped_column(Boolean)  # follows from the times below
    updated_at: Mapped[float] = mapped_column(Double)  # by Label Studio's clock
    seen_at: Mapped[float] = mapped_column(Double)  # newest snapshot that had it; 0: none
    removed_at: Mapped[float | None] = mapped_column(Double)  # newest word of its deletion
    heard_at: Mapped[float] = mapped_column(Double)  # by our clock: the last change of this row
    cancelled: Mapped[bool] = mapped_column(Boolean)
    ground_truth: Mapped[bool] = mapped_column(Boolean)
    completed_by: Mapped[int | None] = mapped_column(BigInteger)
    parent_prediction: Mapped[int | None] = mapped_column(BigInteger)
    content_hash: Mapped[str] = mapped_column(Text)
    problem: Mapped[str | None] = mapped_column(Text)  # a sentence: why its result is not kept


class LedgerResultRow(Base):
    """What an annotator drew: apart, because SQLite rewrites the whole row at each change."""

    __tablename__ = "ledger_results"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    annotation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    result: Mapped[bytes] = mapped_column(LargeBinary)  # zlib-compressed JSON


class SplitRow(Base):
    """On which side of the split a group of tasks stays."""

    __tablename__ = "splits"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    group_name: Mapped[str] = mapped_column(Text, primary_key=True)
    side: Mapped[str] = mapped_column(Text)  # training, hold_out
    decided_at: Mapped[float] = mapped_column(Double)


class SessionRow(Base):
    """A training session."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("sessions_by_project", "project", "target", "created_at"),
        Index("sessions_by_state", "state", "created_at"),
        *(
            Index(
                f"sessions_one_{state}",
                "project",
                "target",
                unique=True,
                sqlite_where=text(f"state = '{state}' AND dataset IS NULL"),
                postgresql_where=text(f"state = '{state}' AND dataset IS NULL"),
            )
            for state in ("queued", "running")
        ),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project: Mapped[str] = mapped_column(Text)
    target: Mapped[str] = mapped_column(Text)  # JSON: the names of its controls, sorted
    state: Mapped[str] = mapped_column(Text)
    trigger: Mapped[str] = mapped_column(Text)
    owner: Mapped[str | None] = mapped_column(Text)
    parameters: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    created_at: Mapped[float] = mapped_column(Double)
    started_at: Mapped[float | None] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    heartbeat_at: Mapped[float | None] = mapped_column(Double)
    lease: Mapped[int] = mapped_column(BigInteger)
    lease_owner: Mapped[str | None] = mapped_column(Text)  # the trainer
    lease_until: Mapped[float] = mapped_column(Double)
    stop_requested: Mapped[bool] = mapped_column(Boolean)
    attempts: Mapped[int] = mapped_column(BigInteger)
    message: Mapped[str | None] = mapped_column(Text)
    version: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    report: Mapped[bytes | None] = mapped_column(LargeBinary)  # zlib-compressed JSON
    manifest: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)  # the same
    dataset: Mapped[str | None] = mapped_column(Text)  # name; None: about a Label Studio project
    label: Mapped[str | None] = mapped_column(Text)  # a word of the person's own, e.g. "cells"
    base: Mapped[str | None] = mapped_column(Text)  # the model asked for; None: the control's
    restarted_from: Mapped[str | None] = mapped_column(Text)  # session whose checkpoint it takes


class DeletedSessionRow(Base):
    """A session that was deleted: a trainer may still have its folder."""

    __tablename__ = "deleted_sessions"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    deleted_at: Mapped[float] = mapped_column(Double)


class TrainerRow(Base):
    """A trainer that is there, busy or not."""

    __tablename__ = "trainers"

    name: Mapped[str] = mapped_column(Text, primary_key=True)  # as leases have it
    seen_at: Mapped[float] = mapped_column(Double)


class SessionPointRow(Base):
    """One point of a session's curves."""

    __tablename__ = "session_points"

    session_id: Mapped[str] = mapped_column(Text, primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    point: Mapped[bytes] = mapped_column(LargeBinary)  # JSON


class VersionRow(Base):
    """A trained network of a project."""

    __tablename__ = "versions"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    controls: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    component: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    session_id: Mapped[str | None] = mapped_column(Text)
    parent: Mapped[str] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(Double)
    metrics: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    message: Mapped[str | None] = mapped_column(Text)
    base_requested: Mapped[str | None] = mapped_column(Text)


class VersionNumberRow(Base):
    """The last number that was given to a version of a project."""

    __tablename__ = "version_numbers"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)


class ServingRow(Base):
    """A trained network that a control is served with instead of its base network."""

    __tablename__ = "serving"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    control: Mapped[str] = mapped_column(Text, primary_key=True)
    serving: Mapped[bytes] = mapped_column(LargeBinary)  # JSON


class ActivationRow(Base):
    """A change of what a project serves."""

    __tablename__ = "activations"
    __table_args__ = (
        Index("activations_by_project", "project", "id"),
        Index("activations_by_state", "state", "id"),
    )

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    project: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    release: Mapped[str | None] = mapped_column(Text)
    components: Mapped[bytes] = mapped_column(LargeBinary)  # JSON: control -> component
    removed: Mapped[bytes] = mapped_column(LargeBinary)  # JSON: names of controls
    origins: Mapped[bytes] = mapped_column(LargeBinary)  # JSON: control -> version, base requested
    reason: Mapped[str] = mapped_column(Text)
    message: Mapped[str | None] = mapped_column(Text)
    owner: Mapped[str | None] = mapped_column(Text)  # the engine that works on it
    lease_until: Mapped[float] = mapped_column(Double)
    attempts: Mapped[int] = mapped_column(BigInteger)  # that failed and may do later
    created_at: Mapped[float] = mapped_column(Double)
    finished_at: Mapped[float | None] = mapped_column(Double)
    served: Mapped[bytes | None] = mapped_column(LargeBinary)  # JSON: all that is served since
    restores: Mapped[int | None] = mapped_column(BigInteger)  # of a rollback: to which; 0: base


class TokenRow(Base):
    """A token of /api/v1."""

    __tablename__ = "tokens"
    __table_args__ = (
        Index(
            "tokens_one_name",
            "name",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(Text)  # SHA-256 of the secret, hex
    created_at: Mapped[float] = mapped_column(Double)
    last_used_at: Mapped[float | None] = mapped_column(Double)
    revoked_at: Mapped[float | None] = mapped_column(Double)


class DatasetRow(Base):
    """A dataset outside Label Studio that a session was asked for with."""

    __tablename__ = "datasets"

    number: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    digest: Mapped[str] = mapped_column(Text, unique=True)  # of its source
    source: Mapped[bytes] = mapped_column(LargeBinary)  # JSON
    created_at: Mapped[float] = mapped_column(Double)


class IdempotencyRow(Base):
    """A start that a caller gave a key, and the answer: the same key gets the same answer."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("idempotency_by_age", "created_at"),)

    caller: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(Text)  # of the request
    status: Mapped[int | None] = mapped_column(BigInteger)  # None: being worked on
    answer: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[float] = mapped_column(Double)


class ToolkitValueRow(Base):
    """A text that a class of the toolkit keeps for a project; the row without a key counts."""

    __tablename__ = "toolkit_values"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)  # "": its revision is the last given
    value: Mapped[str] = mapped_column(Text)
    writer: Mapped[str] = mapped_column(Text)  # the process that wrote it
    revision: Mapped[int] = mapped_column(BigInteger)  # grows with each write to the project
    updated_at: Mapped[float] = mapped_column(Double)
