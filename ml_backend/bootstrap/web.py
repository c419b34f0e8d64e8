"""The web application. Nothing here imports a network library."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from ml_backend import __version__
from ml_backend.bootstrap.models import open_model_desk, open_version_desk
from ml_backend.bootstrap.records import MEGABYTE, open_database, secret_of
from ml_backend.bootstrap.sessions import session_debugger, session_starter, training_desk
from ml_backend.bootstrap.toolkit import served_by_default, toolkit_releasing
from ml_backend.callers import Caller
from ml_backend.domain import POST_PROCESSING_REVISION
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.settings import Settings
from ml_backend.store.census import CensusTaker
from ml_backend.store.components import Components
from ml_backend.store.datasets import Datasets
from ml_backend.store.events import Events
from ml_backend.store.idempotency import IdempotencyKeys
from ml_backend.store.projects import Projects
from ml_backend.store.readiness import look_at_records
from ml_backend.store.releases import Releases
from ml_backend.store.tokens import Tokens
from ml_backend.store.versions import Versions
from ml_backend.web.app import create_app
from ml_backend.web.dependencies import WebDependencies
from ml_backend.web.engine_client import HttpEngineClient

BUSY_TIMEOUT_S = 2.0  # Label Studio gives /setup 3 s


def build_web_app(settings: Settings, *, in_process: Caller | None = None) -> FastAPI:
    """Return the web application; called in each web worker, after the fork.

    Args:
        settings: Of the installation.
        in_process: Who sends every request, for a program that calls the application in its own
            process instead of serving it (see `create_app`).
    """
    database = open_database(settings, busy_timeout_s=BUSY_TIMEOUT_S)
    basic_auth = None
    if settings.basic_auth_user is not None and settings.basic_auth_pass is not None:
        basic_auth = (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value())
    return create_app(
        WebDependencies(
            models=served_by_default(settings),
            revision=POST_PROCESSING_REVISION,
            program_version=__version__,
            predict_budget_s=settings.predict_budget_s,
            max_request_bytes=settings.max_request_mb * MEGABYTE,
            infer_budget_s=settings.infer_budget_s,
            max_model_bytes=settings.max_model_mb * MEGABYTE,
            uploads_folder=settings.data_dir / "incoming",
            label_studio_url=settings.label_studio_url,
            webhook_secret=secret_of(settings.webhook_secret),
            basic_auth=basic_auth,
            parse_label_config=parse_label_config,
            projects=Projects(database),
            components=Components(database),
            releases=Releases(database),
            versions=Versions(database),
            version_desk=open_version_desk(settings, database),
            model_desk=open_model_desk(settings, database),
            training=training_desk(database),
            starter=session_starter(settings, database),
            debugger=session_debugger(database),
            datasets=Datasets(database),
            events=Events(database),
            tokens=Tokens(database),
            idempotency=IdempotencyKeys(database),
            records=partial(look_at_records, database),
            census=CensusTaker(database),
            engine=HttpEngineClient(settings.engine_url or "", secret_of(settings.engine_secret)),
            toolkit=toolkit_releasing(settings, database),
        ),
        in_process=in_process,
    )
