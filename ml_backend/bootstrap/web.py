"""The web application. Nothing here imports a network library."""

from __future__ import annotations

from fastapi import FastAPI

from ml_backend import __version__
from ml_backend.bootstrap.learning import default_models
from ml_backend.bootstrap.records import MEGABYTE, open_database, secret_of
from ml_backend.bootstrap.sessions import training_desk
from ml_backend.domain import POST_PROCESSING_REVISION
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.events import Events
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions
from ml_backend.web.app import create_app
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.engine_client import HttpEngineClient

BUSY_TIMEOUT_S = 2.0  # Label Studio gives /setup 3 s


def build_web_app(settings: Settings) -> FastAPI:
    """Return the web application; called in each web worker, after the fork."""

    database = open_database(settings, busy_timeout_s=BUSY_TIMEOUT_S)
    basic_auth = None
    if settings.basic_auth_user is not None and settings.basic_auth_pass is not None:
        basic_auth = (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value())
    return create_app(
        WebDependencies(
            models=default_models(settings),
            revision=POST_PROCESSING_REVISION,
            program_version=__version__,
            predict_budget_s=settings.predict_budget_s,
            max_request_bytes=settings.max_request_mb * MEGABYTE,
            label_studio_url=settings.label_studio_url,
            webhook_secret=secret_of(settings.webhook_secret),
            basic_auth=basic_auth,
            parse_label_config=parse_label_config,
            projects=Projects(database),
            components=Components(database),
            releases=Releases(database),
            versions=Versions(database),
            training=training_desk(settings, database),
            events=Events(database),
            engine=HttpEngineClient(settings.engine_url or "", secret_of(settings.engine_secret)),
        )
    )
