"""Label Studio's rows as far as a backend needs them: projects, backends, webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ProjectInfo:
    """A Label Studio project as far as a backend needs it."""

    id: int
    title: str
    created_at: int  # seconds since the epoch, as in the "id.epoch" of /setup and /predict
    label_config: str
    model_version: str  # title of a connected backend, or a version of stored predictions, or ""
    shows_predictions: bool  # "Use predictions to prelabel tasks"
    task_count: int
    annotation_count: int = 0  # skipped ones not counted

    @property
    def name_in_setup(self) -> str:
        """Return how /setup and /predict name the project: "<id>.<epoch>"."""
        return f"{self.id}.{self.created_at}"


@dataclass(frozen=True, kw_only=True)
class ConnectedBackend:
    """An ML backend that is registered in a project."""

    id: int
    title: str
    url: str
    model_version: str  # what /setup answered last
    basic_auth_user: str | None
    is_interactive: bool
    error: str | None  # why Label Studio shows it as disconnected


@dataclass(frozen=True, kw_only=True)
class BasicAuth:
    """User name and password that Label Studio sends to the backend."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """An address that Label Studio sends a project's events to."""

    id: int
    project_id: int | None  # None = events of all projects
    url: str
    headers: Mapping[str, str]
    is_active: bool
    sends_all_actions: bool


def parse_project(item: Mapping[str, Any]) -> ProjectInfo:
    """Return a project from Label Studio's answer."""
    return ProjectInfo(
        id=int(item["id"]),
        title=str(item["title"]),
        created_at=int(datetime.fromisoformat(item["created_at"]).timestamp()),
        label_config=str(item["label_config"] or ""),
        model_version=str(item["model_version"] or ""),
        shows_predictions=bool(item["show_collab_predictions"]),
        task_count=int(item["task_number"] or 0),
        annotation_count=int(item.get("total_annotations_number") or 0),
    )


def parse_backend(item: Mapping[str, Any]) -> ConnectedBackend:
    """Return a backend from Label Studio's answer."""
    return ConnectedBackend(
        id=int(item["id"]),
        title=str(item["title"] or ""),
        url=str(item["url"]).rstrip("/"),
        model_version=str(item["model_version"] or ""),
        basic_auth_user=item.get("basic_auth_user") or None,
        is_interactive=bool(item.get("is_interactive")),
        error=item.get("error_message") or None,
    )


def parse_webhook(item: Mapping[str, Any]) -> Webhook:
    """Return a webhook from Label Studio's answer."""
    return Webhook(
        id=int(item["id"]),
        project_id=None if item["project"] is None else int(item["project"]),
        url=str(item["url"]),
        headers=item["headers"] or {},
        is_active=bool(item["is_active"]),
        sends_all_actions=bool(item["send_for_all_actions"]),
    )


def all_events(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a webhook that is on and sends every event with these headers."""
    return {
        "headers": dict(headers),
        "send_payload": True,
        "send_for_all_actions": True,
        "actions": [],
        "is_active": True,
    }


def auth_fields(auth: BasicAuth | None) -> dict[str, str]:
    """Return the fields of a backend that say how Label Studio proves itself to it."""
    if auth is None:
        return {"auth_method": "NONE"}
    return {
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": auth.user,
        "basic_auth_pass": auth.password,
    }
