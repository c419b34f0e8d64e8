"""What a server's refusal means, as a sentence with a remedy."""

from __future__ import annotations

import httpx

from ml_backend.domain import LabelStudioAccess
from ml_backend.errors import ImageFetchError
from ml_backend.imaging.credentials import refusal
from ml_backend.imaging.locations import Location, shown


class RetryLater(ImageFetchError):
    """The image's server has a passing problem; try again later."""


def check_status(
    status: int, url: httpx.URL, *, location: Location, access: LabelStudioAccess, ours: bool
) -> None:
    """Raise unless a status is 200.

    Args:
        status: of the last answer, redirects followed.
        url: where it came from.
        location: where the download started.
        access: whose credentials were sent.
        ours: whether `url` is at Label Studio's origin.

    Raises:
        RetryLater: where a second attempt may help.
        ImageFetchError: where it will not.
    """
    if status == 200:
        return
    if ours:
        _raise_for_label_studio(status, url, location, access)
    host = url.host
    if status in (401, 403):
        text = (
            f"{host} refuses access to the image ({status}); make it readable there, or import "
            "it through a storage of Label Studio."
        )
    elif status in (404, 410):
        text = f"There is no image at {shown(url)} ({status}); correct its address in the task."
    elif status == 429 or status >= 500:
        raise RetryLater(f"{host} has a problem of its own ({status}); try again later.")
    else:
        text = f"{host} answered {status} instead of an image; check its address in the task."
    raise ImageFetchError(text)


def _raise_for_label_studio(
    status: int, url: httpx.URL, location: Location, access: LabelStudioAccess
) -> None:
    if status in (401, 403) and not (status == 403 and location.is_local_file):
        raise ImageFetchError(refusal(access, status))
    if status in (502, 503, 504):
        raise RetryLater(f"Label Studio cannot be reached behind its proxy ({status}).")
    if location.is_local_file and status in (400, 403, 404, 500):
        text = (
            f"Label Studio cannot read the local file {url.params.get('d', '')[:100]!r} "
            f"({status}); check that it lies under LOCAL_FILES_DOCUMENT_ROOT, that a local files "
            "storage of the project covers it and that LOCAL_FILES_SERVING_ENABLED is on."
        )
    elif "/tasks/" in url.path and status in (404, 424):
        text = (
            f"No storage of the project can read {shown(location.stable)} ({status}); check the "
            "storage under Settings > Cloud Storage."
        )
    elif status in (404, 410, 500):  # Label Studio answers 500 for an upload that is missing
        text = (
            f"Label Studio has no file {shown(url.path)} ({status}); it was deleted, "
            "so import the image again."
        )
    else:
        text = f"Label Studio answered {status} instead of the image; see its log."
    raise ImageFetchError(text)


def not_an_image(head: bytes, content_type: str) -> str | None:
    """Return what is wrong with a body that is plainly no image, else None.

    Args:
        head: its first bytes.
        content_type: as the server calls it.
    """
    kind = content_type.partition(";")[0].strip().lower()
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")) or (kind == "text/html" and b"<" in text):
        return "The address leads to a web page, not an image; it may want a login."
    if kind == "application/json" and text.startswith((b"{", b"[")):
        return "The address leads to JSON text, not an image; correct it in the task."
    if not head:
        return "The address leads to an empty file; import the image again."
    return None
