"""The engine where a toolkit class is served: the class instead of networks of ours."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from fastapi import FastAPI

from ml_backend.bootstrap.engine_requests import find_project, find_release
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.records import open_database, secret_of
from ml_backend.bootstrap.toolkit import toolkit_releasing
from ml_backend.bootstrap.toolkit_class import component_of, open_class
from ml_backend.domain import TOOLKIT, Component, LabelConfig
from ml_backend.errors import ModelNotFound, SettingsError
from ml_backend.hosting.instances import Instances
from ml_backend.hosting.loading import ToolkitClass
from ml_backend.processes.engine import EngineApp, create_engine_app
from ml_backend.processes.engine_metrics import EngineMetrics
from ml_backend.processes.toolkit_routes import toolkit_router
from ml_backend.processes.trainer import Repeatedly
from ml_backend.service.delivery import Delivery
from ml_backend.service.models import ModelRegistry
from ml_backend.service.predictions import PredictionService
from ml_backend.service.release_watch import ReleaseWatch
from ml_backend.service.repair import Repairs
from ml_backend.service.toolkit_fits import TRAIN_EVENTS
from ml_backend.service.toolkit_prediction import ToolkitPredictions, ToolkitPredictor
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.deliveries import Deliveries
from ml_backend.store.open_requests import OpenRequests
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.project_updates import ProjectUpdates
from ml_backend.store.projects import Projects
from ml_backend.store.releases import DEFAULT_PROJECT, Releases
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.store.versions import Versions

THREADS = 2  # of tasks in work, unless ENGINE_THREADS says otherwise
LOOK_EVERY_S = 1.0  # at what projects serve


@contextmanager
def toolkit_engine_app(settings: Settings) -> Iterator[FastAPI]:
    """Yield the engine's HTTP application with everything it needs running.

    Raises:
        SettingsError: TOOLKIT_MODEL is not set.
        ModelError: the class cannot be imported.
        StoreError
    """
    database = open_database(settings)
    values = ToolkitValues(database)
    releasing = toolkit_releasing(settings, database, values)
    if releasing is None:
        raise SettingsError("TOOLKIT_MODEL is not set; `ml-backend serve --toolkit` sets it.")
    projects, releases = Projects(database), Releases(database)
    deliveries, open_requests = Deliveries(database), OpenRequests(database)
    slots = settings.engine_threads or THREADS
    class_of_process = _ClassOfProcess(settings, database, values, releasing.requested)
    with ExitStack() as stack:
        stack.enter_context(
            ModelRegistry(
                releasing.requested,
                class_of_process.resolve,
                Components(database),
                releases,
                device=TOOLKIT,
            )
        )
        toolkit_class = class_of_process.found()
        values.set(DEFAULT_PROJECT, TRAIN_EVENTS, json.dumps(list(toolkit_class.train_events)))
        instances = Instances(toolkit_class, values, most=settings.max_networks)
        predictor = ToolkitPredictor(instances, releasing)
        service = stack.enter_context(
            PredictionService(
                predictor, KeptPredictions(database), deliveries, open_requests, threads=slots
            )
        )
        predictions = ToolkitPredictions(service, predictor, instances, releasing)
        label_studio = partial(label_studio_of, settings, projects)
        stack.enter_context(Delivery(deliveries, open_requests, projects, releases, label_studio))
        repairs = stack.enter_context(
            Repairs(projects, releases, Versions(database), ProjectUpdates(database), label_studio)
        )
        watch = ReleaseWatch(projects, releases, repairs.follow_swap)
        stack.enter_context(Repeatedly("releases", watch.look, every_s=LOOK_EVERY_S))
        engine = EngineApp(
            predictions,
            find_project=find_project,
            find_release=partial(find_release, releases),
            access=partial(access_of, settings, projects),
            device=TOOLKIT,
            slots=slots,
            secret=secret_of(settings.engine_secret),
            metrics=EngineMetrics(f"{platform.node()}:{os.getpid()}"),
            parse=lambda _label_config: LabelConfig(controls=()),  # the class reads it itself
        )
        yield create_engine_app(engine, routers=[toolkit_router(predictions, toolkit_class.name)])


class _ClassOfProcess:
    """The one class that this process imports, when its name is first resolved."""

    def __init__(
        self, settings: Settings, database: Database, values: ToolkitValues, requested: str
    ) -> None:
        self._settings = settings
        self._database = database
        self._values = values
        self._requested = requested
        self._found: ToolkitClass | None = None

    def resolve(self, name: str) -> Component:
        """Return the class as a component.

        Raises:
            ModelError: it cannot be imported, or another model is asked for.
        """
        if name != self._requested:
            raise ModelNotFound(
                f"The model {name!r} is not served while TOOLKIT_MODEL names a class; start the "
                "backend without it."
            )
        return component_of(self.found())

    def found(self) -> ToolkitClass:
        """Return the class.

        Raises:
            ModelError: it cannot be imported.
        """
        if self._found is None:
            self._found = open_class(self._settings, self._database, self._values)
        return self._found
