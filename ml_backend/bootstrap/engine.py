"""The engine's application with everything it needs running."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from fastapi import FastAPI

from ml_backend.bootstrap.embeddings import embedding_classifier, open_embedding_cache
from ml_backend.bootstrap.engine_readings import engine_readings
from ml_backend.bootstrap.engine_requests import find_project, find_release
from ml_backend.bootstrap.exports import open_exports
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.inference import open_inference
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.learning import default_models
from ml_backend.bootstrap.networks import open_device_segmenter, resolver
from ml_backend.bootstrap.project_exports import open_project_exports
from ml_backend.bootstrap.records import MEGABYTE, open_database, secret_of
from ml_backend.bootstrap.uploads import open_uploads
from ml_backend.domain import POST_PROCESSING_REVISION, Component
from ml_backend.engines.classification import is_for_choices
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.targets import EMBEDDER_PREFIX
from ml_backend.processes.engine import EngineApp, create_engine_app
from ml_backend.processes.engine_export import export_router
from ml_backend.processes.engine_infer import infer_router
from ml_backend.processes.engine_metrics import EngineMetrics
from ml_backend.processes.engine_uploads import uploads_router
from ml_backend.service.activation import ActivationTools, Activator
from ml_backend.service.ahead import Ahead
from ml_backend.service.delivery import Delivery
from ml_backend.service.models import ModelRegistry
from ml_backend.service.predictions import PredictionService
from ml_backend.service.project_export_request import PROJECT_PATH
from ml_backend.service.releasing import Releasing
from ml_backend.service.repair import Repairs
from ml_backend.service.task_prediction import TaskPredictor
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.projects import Projects
from ml_backend.store.releases import Releases
from ml_backend.store.versions import Versions


@contextmanager
def engine_app(settings: Settings) -> Iterator[FastAPI]:
    """Yield the engine's HTTP application with everything it needs running.

    Raises:
        SettingsError, ModelError, StoreError
    """
    database = open_database(settings)
    projects, releases = Projects(database), Releases(database)
    deliveries, open_requests = Deliveries(database), OpenRequests(database)
    with ExitStack() as stack:
        metrics = EngineMetrics(f"{platform.node()}:{os.getpid()}")
        segmenter, device = stack.enter_context(open_device_segmenter(settings, observer=metrics))
        embeddings = open_embedding_cache(settings)
        classifier = embedding_classifier(embeddings, torch.device(device), segmenter.run_on_device)
        resolve = resolver(settings, device, database)

        def prove(component: Component) -> None:
            (classifier if is_for_choices(component) else segmenter).warm(component)

        def resolve_and_load(name: str) -> Component:
            component = resolve(name)
            prove(component)  # a version is announced once it is known to work
            return component

        components = Components(database)
        stack.enter_context(
            ModelRegistry(settings.model, resolve_and_load, components, releases, device=device)
        )
        # looked for before the first project with Choices asks for it
        components.want(EMBEDDER_PREFIX + settings.embedder)
        fetcher, slots = build_fetcher(settings), threads_for(settings, device)
        predictor = TaskPredictor(
            fetcher=fetcher,
            decode=build_decoder(settings),
            segmenter=segmenter,
            classifier=classifier,
        )
        service = stack.enter_context(
            PredictionService(
                predictor,
                KeptPredictions(database),
                deliveries,
                open_requests,
                threads=slots,
            )
        )
        label_studio = partial(label_studio_of, settings, projects)
        stack.enter_context(Delivery(deliveries, open_requests, projects, releases, label_studio))
        versions = Versions(database)
        repairs = stack.enter_context(
            Repairs(projects, releases, versions, ProjectUpdates(database), label_studio)
        )
        tools = ActivationTools(
            projects=projects,
            versions=versions,
            releasing=Releasing(
                models=default_models(settings),
                revision=POST_PROCESSING_REVISION,
                parse=parse_label_config,
                components=components,
                versions=versions,
                releases=releases,
            ),
            prove=prove,
            ahead=Ahead(
                predictions=service,
                deliveries=deliveries,
                most_tasks=settings.predict_ahead_tasks,
                most_seconds=settings.predict_ahead_s,
            ),
            repairs=repairs,
            label_studio=label_studio,
            access=partial(access_of, settings, projects),
        )
        stack.enter_context(Activator(tools))
        engine = EngineApp(
            service,
            find_project=find_project,
            find_release=partial(find_release, releases),
            access=partial(access_of, settings, projects),
            device=device,
            slots=slots,
            secret=secret_of(settings.engine_secret),
            metrics=metrics,
        )
        metrics.watch(
            engine_readings(
                torch.device(device),
                depth=engine.depth,
                service=service,
                segmenter=segmenter,
                fetcher=fetcher,
                embeddings=embeddings,
                slots=slots,
            )
        )
        uploads = uploads_router(
            open_uploads(settings, database, prove), max_bytes=settings.max_model_mb * MEGABYTE
        )
        inference = open_inference(
            settings, database, fetcher=fetcher, segmenter=segmenter, resolve=resolve
        )
        infer = infer_router(
            stack.enter_context(inference),
            threads=slots,
            max_bytes=settings.max_request_mb * MEGABYTE,
        )
        exports = export_router(stack.enter_context(open_exports(settings)))
        data = export_router(
            stack.enter_context(open_project_exports(settings, database)), path=PROJECT_PATH
        )
        yield create_engine_app(engine, routers=[uploads, infer, exports, data])


def threads_for(settings: Settings, device: str) -> int:
    """Return how many images an engine works on at once.

    On a CPU two: one downloads and decodes while the other computes. A GPU wants enough images to
    fill its batches while others are in post-processing.
    """
    if settings.engine_threads:
        return settings.engine_threads
    return 2 if device == "cpu" else 8
