"""The trainer's queue, the worker behind it, and what it does every so often."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from ml_backend.bootstrap.label_studio import label_studio_of
from ml_backend.bootstrap.learning import default_models, learning_defaults
from ml_backend.bootstrap.records import MEGABYTE, open_database, secret_of
from ml_backend.bootstrap.training import models_folder, sessions_folder
from ml_backend.errors import StoreError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.learning import SessionState
from ml_backend.model_files.version_folders import Publisher
from ml_backend.processes.session_worker import SessionWorker
from ml_backend.processes.trainer import Repeatedly, Worker, register_sessions
from ml_backend.processes.training_child import TrainingChild
from ml_backend.service.learning_loop import LearningLoop
from ml_backend.service.ledger import EventLedger
from ml_backend.service.planning import Planner
from ml_backend.service.reconcile import Reconciler
from ml_backend.service.toolkit_fits import ToolkitFits, WantedEvents
from ml_backend.settings import Settings
from ml_backend.store.annotations import AnnotationLedger
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.events import Events
from ml_backend.store.idempotency import IdempotencyKeys
from ml_backend.store.predictions import KeptPredictions
from ml_backend.store.projects import Projects
from ml_backend.store.queue import make_queue
from ml_backend.store.sessions import Sessions
from ml_backend.store.toolkit_values import ToolkitValues
from ml_backend.store.trainers import SEEN_EVERY_S, Trainers
from ml_backend.store.versions import Versions
from ml_backend.store.waiting_events import WaitingEvents
from ml_backend.training.leftovers import remove_leftovers

KEEP_HOUSE_EVERY_S = 60.0


@contextmanager
def open_trainer(settings: Settings) -> Iterator[tuple[Any, Worker]]:
    """Yield the trainer's queue and the worker behind it, with everything around them running.

    Raises:
        StoreError
    """
    database = open_database(settings)
    sessions = Sessions(database)
    queue = make_queue(settings.data_dir, secret_of(settings.redis_url))
    name = f"{platform.node()}:{os.getpid()}"
    worker = SessionWorker(sessions, TrainingChild, owner=name)
    wake = register_sessions(queue, worker)
    if settings.toolkit_model is None:
        loop: AbstractContextManager[Any] = _learning_loop(settings, database, wake=wake)
    else:
        loop = Repeatedly("fits", _toolkit_fits(settings, database, wake=wake).look, every_s=1.0)
    kept, events, ledger = KeptPredictions(database), Events(database), AnnotationLedger(database)
    idempotency = IdempotencyKeys(database)

    publisher = Publisher(models_folder(settings))
    find = partial(sessions.get, with_manifest=False)
    completed = partial(sessions.find, state=SessionState.COMPLETED, with_manifests=False)

    def keep_house() -> None:
        kept.prune(settings.kept_results_mb * MEGABYTE)
        events.prune()
        ledger.prune()
        idempotency.prune()
        remove_leftovers(
            sessions_folder(settings), find, completed, was_deleted=sessions.was_deleted
        )
        sessions.prune_deleted()
        publisher.sweep()

    trainers = Trainers(database)
    presence = Repeatedly("presence", partial(trainers.seen, name), every_s=SEEN_EVERY_S)
    with loop, Repeatedly("housekeeping", keep_house, every_s=KEEP_HOUSE_EVERY_S):
        with presence:
            yield queue, worker
        with contextlib.suppress(StoreError):  # then it is forgotten after a while
            trainers.leave(name)


def _toolkit_fits(
    settings: Settings, database: Database, *, wake: Callable[[str], None]
) -> ToolkitFits:
    waiting = WaitingEvents(database)
    ledger = EventLedger(
        Events(database),
        Projects(database),
        AnnotationLedger(database),
        None,
        label_studio_url=settings.label_studio_url,
        fits=WantedEvents(waiting, ToolkitValues(database)),
    )
    return ToolkitFits(ledger, waiting, Sessions(database), wake=wake)


def _learning_loop(
    settings: Settings, database: Database, *, wake: Callable[[str], None]
) -> LearningLoop:
    projects, ledger, sessions = Projects(database), AnnotationLedger(database), Sessions(database)
    events = Events(database)
    planner = Planner(
        models=default_models(settings),
        defaults=learning_defaults(settings),
        parse=parse_label_config,
        projects=projects,
        ledger=ledger,
        sessions=sessions,
        versions=Versions(database),
        components=Components(database),
    )
    return LearningLoop(
        events=EventLedger(
            events,
            projects,
            ledger,
            planner,
            label_studio_url=settings.label_studio_url,
        ),
        planner=planner,
        reconciler=Reconciler(
            ledger,
            partial(label_studio_of, settings, projects),
            has_backlog=events.has_queued,
            every_s=settings.reconcile_s,
        ),
        ledger=ledger,
        projects=projects,
        sessions=sessions,
        wake=wake,
    )
