"""What takes uploaded checkpoints in, where networks run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ml_backend.bootstrap.models import open_model_names
from ml_backend.bootstrap.networks import open_device_segmenter
from ml_backend.bootstrap.records import MEGABYTE, open_database, prepare_records
from ml_backend.bootstrap.training import models_folder
from ml_backend.domain import Component
from ml_backend.errors import StoreError
from ml_backend.learning import Version
from ml_backend.service.upload_request import UploadRequest
from ml_backend.service.uploads import Uploads
from ml_backend.settings import Settings
from ml_backend.store.database import Database
from ml_backend.store.versions import Versions


def open_uploads(
    settings: Settings, database: Database, prove: Callable[[Component], object]
) -> Uploads:
    """Return what takes checkpoints in; `prove` loads, verifies and tries a network."""
    return Uploads(
        models=models_folder(settings),
        versions=Versions(database),
        names=open_model_names(database),
        prove=prove,
        cellpose_dir=settings.cellpose_models_dir,
        max_bytes=settings.max_model_mb * MEGABYTE,
    )


def upload_here(settings: Settings, file: Path, request: UploadRequest) -> Version:
    """Return the model that a checkpoint became, checked and tried in this process.

    Raises:
        SettingsError: this machine has no such device.
        CheckpointInvalid, Conflict, ModelError, EngineError: as `Uploads.take`.
        StoreError
    """
    prepare_records(settings)
    with open_device_segmenter(settings) as (segmenter, _):
        uploads = open_uploads(settings, open_database(settings), segmenter.warm)
        try:
            return uploads.take(file, request)
        except OSError as error:
            raise StoreError(
                f"The model cannot be kept ({error.strerror or error}); see to the room on the "
                "disk and to the permissions of DATA_DIR."
            ) from error
