"""The way to images: fetching and decoding."""

from __future__ import annotations

from ml_backend.bootstrap.records import MEGABYTE
from ml_backend.domain import FetchedFile, Image
from ml_backend.imaging.addresses import AddressGuard
from ml_backend.imaging.cache import DiskCache
from ml_backend.imaging.credentials import Credentials
from ml_backend.imaging.decode import decode_image
from ml_backend.imaging.fetch import HttpFetcher
from ml_backend.imaging.transport import GuardedClient
from ml_backend.service.task_prediction import Decoder
from ml_backend.settings import Settings

IMAGE_LIFE_S = 60.0  # until a server is asked whether its image changed; uploads never do


def build_fetcher(settings: Settings, *, images_only: bool = True) -> HttpFetcher:
    """Return the way to images: guarded, capped and cached.

    Args:
        settings: Of this process.
        images_only: Whether web pages and JSON texts are refused.
    """

    client = GuardedClient(AddressGuard(settings.allowed_hosts.split(",")))
    return HttpFetcher(
        client,
        Credentials(client),
        DiskCache(
            settings.data_dir / "images",
            max_bytes=settings.image_cache_mb * MEGABYTE,
            life_s=IMAGE_LIFE_S,
        ),
        timeout_s=settings.fetch_timeout_s,
        max_bytes=settings.max_image_mb * MEGABYTE,
        images_only=images_only,
    )


def build_decoder(settings: Settings) -> Decoder:
    """Return the decoder with this machine's pixel cap."""

    def decode(file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None) -> Image:
        return decode_image(
            file, plane=plane, channels=channels, max_megapixels=settings.max_image_megapixels
        )

    return decode
