"""Looks at everything that usually goes wrong, and says what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from ml_backend.domain import Component, FetchedFile, LabelConfig
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.rows import BasicAuth
from ml_backend.service.checks import Check, Status, failed, warning
from ml_backend.service.label_studio_checks import (
    LabelStudio,
    ProjectChecks,
    check_address,
    check_key,
    check_reachable,
)
from ml_backend.service.machine_checks import (
    check_backend,
    check_data_dir,
    check_database,
    check_device,
    check_embedder,
    check_engine,
    check_model,
    check_redis,
    check_toolkit_class,
)
from ml_backend.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Instruments:
    """What the doctor looks with; bootstrap makes them of the real thing."""

    open_database: Callable[[], None]  # raises StoreError
    ping_redis: Callable[[], None]  # raises OSError or BackendError
    resolve_model: Callable[[], Component]  # raises ModelError
    resolve_embedder: Callable[[], Component]  # raises ModelError
    parse_label_config: Callable[[str], LabelConfig]  # raises ConfigError
    fetch: Callable[[str, int], FetchedFile]  # address, task id; raises ImageError
    http: httpx.Client  # for our own addresses
    label_studio: LabelStudio | None  # None: LABEL_STUDIO_URL is not set


def run_checks(
    settings: Settings,
    instruments: Instruments,
    *,
    backend_url: str,
    project: str | None = None,
) -> list[Check]:
    """Return every check, the machine's first; projects are left as they are.

    Args:
        settings: as `serve` has them.
        instruments: what to look with.
        backend_url: our address as Label Studio reaches it.
        project: number or title of a Label Studio project; None leaves its checks out.
    """
    checks = [
        check_data_dir(settings.data_dir),
        check_database(settings, instruments.open_database),
        *check_redis(settings, instruments.ping_redis),
        check_device(settings.device),
        *_check_models(settings, instruments),
        *check_engine(settings, instruments.http),
        check_backend(backend_url, instruments.http, basic_auth_of(settings)),
        check_address(settings),
    ]
    if instruments.label_studio is None:
        return checks
    reachable = check_reachable(instruments.label_studio)
    checks.append(reachable)
    if reachable.status is Status.FAILED:
        return checks
    key = check_key(settings, instruments.label_studio)
    checks.append(key)
    if key.status is not Status.OK:
        return checks
    if project is None:
        checks.append(
            warning(
                "project",
                "The network guards, the webhook and the images were not looked at",
                "ml-backend doctor --project NUMBER",
            )
        )
        return checks
    checks += _check_project(settings, instruments, instruments.label_studio, backend_url, project)
    return checks


def _check_models(settings: Settings, instruments: Instruments) -> list[Check]:
    if settings.toolkit_model is not None:
        return [check_toolkit_class(settings, instruments.resolve_model)]
    return [
        check_model(settings, instruments.resolve_model),
        check_embedder(settings, instruments.resolve_embedder),
    ]


def _check_project(
    settings: Settings,
    instruments: Instruments,
    label_studio: LabelStudio,
    backend_url: str,
    project: str,
) -> list[Check]:
    try:
        found = label_studio.find_project(project)
    except LabelStudioError as error:
        return [failed("project", error.message)]
    secret = settings.webhook_secret
    looks = ProjectChecks(
        label_studio,
        found,
        backend_url=backend_url,
        webhook_secret=None if secret is None else secret.get_secret_value(),
        auth=basic_auth_of(settings),
    )
    parse = instruments.parse_label_config
    questions: list[tuple[str, Callable[[], list[Check]]]] = [
        ("label config", lambda: looks.label_config(parse)),
        ("network guards", looks.guards),
        ("connection", looks.connection),
        ("webhook", lambda: looks.webhook(instruments.http)),
        ("image", lambda: looks.image(parse, instruments.fetch)),
    ]
    if settings.toolkit_model is not None:  # what its class reads is not known here
        of_images = {"label config", "image"}
        questions = [(name, look) for name, look in questions if name not in of_images]
    checks: list[Check] = []
    for name, look in questions:
        try:
            checks += look()
        except LabelStudioError as error:
            checks.append(failed(name, error.message))
    return checks


def basic_auth_of(settings: Settings) -> BasicAuth | None:
    """Return what Label Studio must send, None when everyone may call."""
    if settings.basic_auth_user is None or settings.basic_auth_pass is None:
        return None
    return BasicAuth(
        user=settings.basic_auth_user, password=settings.basic_auth_pass.get_secret_value()
    )
