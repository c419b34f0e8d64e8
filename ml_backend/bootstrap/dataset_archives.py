"""The way to datasets: folders of this machine, archives on it, and archives elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ml_backend.bootstrap.records import MEGABYTE
from ml_backend.datasets import DatasetSource
from ml_backend.domain import LabelStudioAccess
from ml_backend.errors import ImageError, TrainingError
from ml_backend.imaging.addresses import AddressGuard
from ml_backend.imaging.cache import DiskCache
from ml_backend.imaging.credentials import Credentials
from ml_backend.imaging.fetch import HttpFetcher
from ml_backend.imaging.locations import shown
from ml_backend.imaging.transport import GuardedClient
from ml_backend.model_files.folders import remove_folder
from ml_backend.settings import Settings
from ml_backend.training.dataset_archive import ArchiveLimits, is_archive, unpack
from ml_backend.training.dataset_source import FoundFiles, find_files, find_unpacked_files

UNPACKED: Final = "unpacked"  # in a session's folder, while its dataset is read
TIMEOUT_S: Final = 6 * 3600.0  # of one download
UNPACKED_TIMES: Final = 4  # the largest archive
KEPT_TIMES: Final = 2  # the largest archive
LIFE_S: Final = 60.0  # until a server is asked whether its archive changed
_ADDRESS: Final = re.compile(r"https?://", re.IGNORECASE)

# the fetcher says what it has to say of images in tasks
_WORDS: Final = (
    ("MAX_IMAGE_MB", "MAX_DATASET_MB"),
    ("image file", "archive"),
    ("image", "archive"),
    ("IMAGE_CACHE_MB", "MAX_DATASET_MB"),
    (" in the task", ""),
)


def is_address(root: str) -> bool:
    """Return whether a dataset is to be fetched from somewhere."""
    return _ADDRESS.match(root) is not None


def open_dataset(
    settings: Settings, source: DatasetSource, folder: Path, *, on_file: Callable[[], None]
) -> FoundFiles:
    """Return the files of a dataset, fetched and unpacked where that is needed.

    Args:
        settings: Of this process.
        source: Where it lies.
        folder: Of the session; `close_dataset` removes what is unpacked in it.
        on_file: Is told before each file; may raise to stop.

    Raises:
        TrainingError: it is not there, is not to be had, or holds no images with masks.
        OSError: the disk is full or cannot be written.
    """
    root = Path(source.root).expanduser()
    if is_address(source.root):
        archive = _fetch(settings, source.root)
    elif root.is_file():
        archive = root
        if not is_archive(root):
            raise TrainingError(
                f"{root} is a file, but no zip or tar archive; name a folder or an archive."
            )
    else:
        return find_files(root, source)
    close_dataset(folder)
    limits = ArchiveLimits(unpacked=UNPACKED_TIMES * settings.max_dataset_mb * MEGABYTE)
    unpack(archive, folder / UNPACKED, limits=limits, on_file=on_file)
    return find_unpacked_files(folder / UNPACKED, source)


def close_dataset(folder: Path) -> None:
    """Remove what was unpacked in the folder of a session."""
    remove_folder(folder / UNPACKED)


def _fetch(settings: Settings, address: str) -> Path:
    """Return an archive, from the cache where its server says that it has not changed."""
    most = settings.max_dataset_mb * MEGABYTE
    try:
        cache = DiskCache(
            settings.data_dir / "archives", max_bytes=KEPT_TIMES * most, life_s=LIFE_S
        )
        client = GuardedClient(AddressGuard(settings.allowed_hosts.split(",")))
        fetcher = HttpFetcher(
            client, Credentials(client), cache, timeout_s=TIMEOUT_S, max_bytes=most
        )
        try:
            access = LabelStudioAccess(origin=None)
            return fetcher.fetch(address, task_id=None, access=access).path
        finally:
            cache.close()
    except ImageError as error:
        raise TrainingError(
            f"The dataset {shown(address)} is not to be had: {_of_archives(error.message)}"
        ) from error


def _of_archives(sentence: str) -> str:
    for said, meant in _WORDS:
        sentence = sentence.replace(said, meant)
    return sentence
