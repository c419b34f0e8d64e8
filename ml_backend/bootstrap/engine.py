"""The engine's application with everything it needs running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from fastapi import FastAPI

from ml_backend.bootstrap.embeddings import embedding_classifier
from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.learning import default_models
from ml_backend.bootstrap.networks import open_device_segmenter, resolver
from ml_backend.bootstrap.records import open_database, secret_of
from ml_backend.domain import POST_PROCESSING_REVISION, Component, ProjectKey, Release
from ml_backend.engines.classification import is_for_choices
from ml_backend.errors import BadRequest
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.targets import EMBEDDER_PREFIX
from ml_backend.processes.engine import EngineApp, create_engine_app
from ml_backend.service.activation import ActivationTools, Activator
from ml_backend.service.ahead import Ahead
from ml_backend.service.delivery import Delivery
from ml_backend.service.models import ModelRegistry
from ml_backend.service.predictions import PredictionService
from ml_backend.service.releasing import Releasing
from ml_backend.service.repair import Repairs
from ml_backend.service.task_prediction import TaskPredictor
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.projects import Projects, parse_project
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
        segmenter, device = stack.enter_context(open_device_segmenter(settings))
        classifier = embedding_classifier(settings, torch.device(device), segmenter.run_on_device)
        resolve = resolver(settings, device)

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
        predictor = TaskPredictor(
            fetcher=build_fetcher(settings),
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
                threads=threads_for(settings, device),
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
            secret=secret_of(settings.engine_secret),
        )
        yield create_engine_app(engine)


def threads_for(settings: Settings, device: str) -> int:
    """Return how many images an engine works on at once.

    On a CPU two: one downloads and decodes while the other computes. A GPU wants enough images to
    fill its batches while others are in post-processing.
    """
    if settings.engine_threads:
        return settings.engine_threads
    return 2 if device == "cpu" else 8


def find_project(text: str) -> ProjectKey:
    """Return the key that str(ProjectKey) gave.

    Raises:
        BadRequest
    """
    origin, separator, name = text.rpartition("#")
    parsed = parse_project(name)
    if not separator or parsed is None:
        raise BadRequest(f"{text[:200]!r} is not a project key.")
    return ProjectKey(origin=origin, project_id=parsed[0], created_at=parsed[1])


def find_release(releases: Releases, project: ProjectKey, version: str) -> Release:
    """Return that release.

    Raises:
        BadRequest
    """
    release = releases.by_version(project, version)
    if release is None:
        raise BadRequest(f"Project {project} has no release {version[:100]!r}.")
    return release
