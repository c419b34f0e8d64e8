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
    origin: Mapped[str | None] = mapped_column(Text)  # of Label Studio, where `connect` named it
    project_id: Mapped[int | None] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)  # queued, done, failed
    message: Mapped[str | None] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(Text)
    received_at: Mapped[float] = mapped_column(Double)
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of `payload`
    payload: Mapped[bytes] = mapped_column(LargeBinary)  # zlib-compressed body
