"""What turns images into embeddings, and where those are kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch

from ml_backend.bootstrap.images import build_decoder, build_fetcher
from ml_backend.bootstrap.label_studio import access_of, label_studio_of
from ml_backend.bootstrap.learning import default_models
from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.domain import Component, ProjectKey
from ml_backend.engines.classification import EmbeddingClassifier, RunOnDevice
from ml_backend.engines.device_profile import open_device
from ml_backend.engines.embedder_catalogue import resolve_embedder
from ml_backend.engines.embedding import open_embedder
from ml_backend.engines.embedding_cache import EmbeddingCache
from ml_backend.engines.image_embeddings import ImageEmbeddings
from ml_backend.errors import ConfigError, LabelStudioError
from ml_backend.labelstudio.controls import parse_label_config
from ml_backend.labelstudio.targets import (
    EMBEDDER_PREFIX,
    ChoicesTarget,
    requested_by,
    targets_of,
)
from ml_backend.service.project_names import find_project
from ml_backend.settings import Settings
from ml_backend.store.components import Components
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.training.project_images import ProjectEmbedder, ProjectImages

CACHE_FILE = "embeddings.sqlite3"


def open_embedding_cache(settings: Settings) -> EmbeddingCache:
    """Return the embeddings of images that this machine keeps."""
    return EmbeddingCache(settings.data_dir / CACHE_FILE, settings.embedding_cache_mb)


def find_embedder(settings: Settings, database: Database, target: ChoicesTarget) -> Component:
    """Return the embedder that the engines serve for a target, or would serve.

    Raises:
        ModelError: it is not on this machine.
        StoreError
    """
    requested = requested_by(target.controls[0], default_models(settings))
    resolved = Components(database).resolved(requested)
    if resolved is not None and (not resolved.path or Path(resolved.path).is_file()):
        return resolved
    return resolve_embedder(requested.removeprefix(EMBEDDER_PREFIX))


def project_embedder(
    settings: Settings,
    projects: Projects,
    project: ProjectKey,
    target: ChoicesTarget,
    embeddings: ImageEmbeddings,
    *,
    on_task: Callable[[int, int], None],
) -> ProjectEmbedder:
    """Return what embeds the images of a project; `on_task` as `ProjectEmbedder` takes it."""
    return ProjectEmbedder(
        fetcher=build_fetcher(settings),
        decode=build_decoder(settings),
        embeddings=embeddings,
        target=target,
        access=access_of(settings, projects, project),
        on_task=on_task,
    )


def embed_project(
    settings: Settings, project: str, *, on_task: Callable[[int, int], None]
) -> list[tuple[ChoicesTarget, ProjectImages]]:
    """Embed all images of a project, here and now; return what came of each embedder.

    Raises:
        NotFound: there is no such project.
        ConfigError: its label config has no Choices that are fed.
        LabelStudioError: it cannot be asked for its tasks.
        ModelError, EngineError: the embedder cannot be run.
        StoreError
    """
    prepare_records(settings)
    database = open_database(settings)
    projects = Projects(database)
    found = find_project(projects, project)
    targets = [
        target
        for target in targets_of(parse_label_config(found.label_config))
        if isinstance(target, ChoicesTarget)
    ]
    if not targets:
        raise ConfigError(
            f"Project {found.key.project_id} has no Choices tag of an image; there is nothing to "
            "embed images for."
        )
    label_studio = label_studio_of(settings, projects, found.key)
    if label_studio is None:
        raise LabelStudioError(
            "The project's tasks are read from Label Studio; set LABEL_STUDIO_URL and "
            "LABEL_STUDIO_API_KEY."
        )
    tasks = list(label_studio.tasks(found.key.project_id))
    device = open_device(settings.device)
    made = []
    for target in targets:
        component = find_embedder(settings, database, target)
        embeddings = ImageEmbeddings(
            open_embedder(component, device), open_embedding_cache(settings)
        )
        embedder = project_embedder(
            settings, projects, found.key, target, embeddings, on_task=on_task
        )
        made.append((target, embedder.embed(tasks)))
    return made


def embedding_classifier(
    cache: EmbeddingCache, device: torch.device, run_on_device: RunOnDevice
) -> EmbeddingClassifier:
    """Return what answers for `Choices` controls; networks of timm run on `device`."""

    @lru_cache(maxsize=16)
    def resolve(name: str) -> Component:
        return resolve_embedder(name)

    return EmbeddingClassifier(
        cache,
        resolve=resolve,
        open_embedder=partial(open_embedder, device=device),
        run_on_device=run_on_device,
    )
