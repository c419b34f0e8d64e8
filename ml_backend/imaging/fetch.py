"""An address in task data becomes a file in the cache."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import httpx

from ml_backend.domain import FetchedFile, LabelStudioAccess, is_personal_access_token
from ml_backend.errors import ImageFetchError, ImageRefused, ImageTooLarge
from ml_backend.imaging.addresses import same_origin
from ml_backend.imaging.cache import DiskCache, Entry
from ml_backend.imaging.credentials import (
    Credentials,
    fingerprint,
    refusal,
)
from ml_backend.imaging.locations import Location, is_data_address, locate, read_data_address
from ml_backend.imaging.replies import RetryLater, check_status, not_an_image
from ml_backend.imaging.transport import Answer, ConnectionBroke, Deadline, GuardedClient

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_PAUSE_BEFORE_RETRY_S = 0.5
_SNIFFED_BYTES = 512


class HttpFetcher:
    """Downloads images, each address once; credentials go to Label Studio's origin only."""

    def __init__(
        self,
        client: GuardedClient,
        credentials: Credentials,
        cache: DiskCache,
        *,
        timeout_s: float,
        max_bytes: int,
        images_only: bool = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make a fetcher.

        Args:
            client: sends requests to allowed addresses.
            credentials: makes the `Authorization` header for Label Studio.
            cache: keeps what was downloaded.
            timeout_s: for one image, from the first connection to the last byte.
            max_bytes: the largest file that is downloaded.
            images_only: whether web pages and JSON texts are refused.
            sleep: waits before the second attempt.
        """
        self._client = client
        self._credentials = credentials
        self._cache = cache
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._images_only = images_only
        self._sleep = sleep
        self._in_flight: dict[str, Future[FetchedFile]] = {}
        self._in_flight_lock = threading.Lock()

    @property
    def kept_bytes(self) -> int:
        """Return the size of the files that are kept."""
        return self._cache.size

    @property
    def kept_asked(self) -> tuple[int, int]:
        """Return how often a file was kept when it was asked for, and how often it was not."""
        return self._cache.asked

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        """Return the file at an address of a task, from the cache when it is there and current.

        Threads that ask for the same file at the same time share one download and its outcome.

        Args:
            url: as it stands in the task's data.
            task_id: the task, needed for addresses in cloud storage.
            access: the Label Studio that the task came from.

        Raises:
            ImageFetchError: it could not be downloaded.
            ImageRefused: its address is not allowed.
            ImageTooLarge: over the size or time cap.
        """
        if is_data_address(url):
            return self._keep_data(url)
        location = locate(url, task_id=task_id, access=access, guard=self._client.guard)
        key = _cache_key(location, access)
        with self._in_flight_lock:
            running = self._in_flight.get(key)
            if running is None:
                mine: Future[FetchedFile] = Future()
                self._in_flight[key] = mine
        if running is not None:
            return running.result()
        try:
            mine.set_result(self._fetch(location, key, access))
        except BaseException as error:  # handed on to those who wait, and raised below
            mine.set_exception(error)
        finally:
            with self._in_flight_lock:
                del self._in_flight[key]
        return mine.result()

    def _fetch(self, location: Location, key: str, access: LabelStudioAccess) -> FetchedFile:
        entry = self._cache.find(key)
        if entry is not None and self._cache.is_fresh(entry):
            return entry.file
        deadline = Deadline(self._timeout_s)
        try:
            return self._download(location, key, access, entry, deadline)
        except (RetryLater, ConnectionBroke):
            self._sleep(min(_PAUSE_BEFORE_RETRY_S, deadline.left()))
            return self._download(location, key, access, entry, deadline)

    def _download(
        self,
        location: Location,
        key: str,
        access: LabelStudioAccess,
        entry: Entry | None,
        deadline: Deadline,
    ) -> FetchedFile:
        origin = httpx.URL(access.origin) if access.origin is not None else None
        url, refused = location.url, None
        hops = 0
        while hops <= _MOST_REDIRECTS:
            ours = origin is not None and same_origin(url, origin)
            headers = _conditions(entry)
            authorization = None
            if ours:  # decided anew at every hop: a redirect elsewhere carries no credentials
                authorization = self._credentials.header(access, deadline=deadline, refused=refused)
            if authorization is not None:
                headers["Authorization"] = authorization
            with self._client.send(
                "GET", url, headers=headers, deadline=deadline, trusted=ours
            ) as answer:
                if answer.status in _REDIRECTS and "location" in answer.headers:
                    url = _redirected(url, answer.headers["location"])
                    hops += 1
                    continue
                if answer.status == 401 and ours and refused is None and _renewable(access):
                    refused = authorization
                    continue
                if answer.status == 304 and entry is not None:
                    self._cache.note(
                        key,
                        entry.file,
                        self._cache.origin(
                            etag=entry.origin.etag, last_modified=entry.origin.last_modified
                        ),
                    )
                    return entry.file
                check_status(answer.status, url, location=location, access=access, ours=ours)
                return self._receive(answer, key, location, access, ours=ours)
        raise ImageFetchError(
            f"The image's address leads through more than {_MOST_REDIRECTS} redirects; "
            "use the address that it ends at."
        )

    def _receive(
        self,
        answer: Answer,
        key: str,
        location: Location,
        access: LabelStudioAccess,
        *,
        ours: bool,
    ) -> FetchedFile:
        length = answer.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise self._too_large(int(length))
        content_type = answer.headers.get("content-type", "")
        head = b""
        with self._cache.receive() as incoming:
            for chunk in answer.chunks:
                if incoming.size + len(chunk) > self._max_bytes:
                    raise self._too_large(None)
                if len(head) < _SNIFFED_BYTES:
                    head += chunk[:_SNIFFED_BYTES]
                incoming.write(chunk)
            wrong = not_an_image(head, content_type) if self._images_only else None
            if wrong is not None:
                raise ImageFetchError(refusal(access, 401) if ours and "page" in wrong else wrong)
            origin = self._cache.origin(
                immutable=location.immutable,
                etag=answer.headers.get("etag"),
                last_modified=answer.headers.get("last-modified"),
            )
            return self._cache.keep(incoming, key=key, origin=origin)

    def _keep_data(self, address: str) -> FetchedFile:
        if len(address) * 3 // 4 > self._max_bytes * 3:  # every byte may be written as %xx
            raise self._too_large(None)
        content = read_data_address(address)
        if len(content) > self._max_bytes:
            raise self._too_large(len(content))
        with self._cache.receive() as incoming:
            incoming.write(content)
            return self._cache.keep(incoming, key=None, origin=self._cache.origin())

    def _too_large(self, size: int | None) -> ImageTooLarge:
        has = f"has {size / 1e6:.0f} MB" if size is not None else "is larger"
        return ImageTooLarge(
            f"The image file {has}, more than MAX_IMAGE_MB ({self._max_bytes / 1e6:.0f}) allows."
        )


def _cache_key(location: Location, access: LabelStudioAccess) -> str:
    """Return the name of an address in the cache.

    What Label Studio serves depends on who asks: it is found again with the same token only.
    """
    who = f"{access.origin} {fingerprint(access.token)}" if location.through_label_studio else ""
    return hashlib.sha256(f"{who}\n{location.stable}".encode()).hexdigest()


def _conditions(entry: Entry | None) -> dict[str, str]:
    headers = {"Accept": "image/*,*/*;q=0.8", "User-Agent": "label-studio-cell-backend"}
    if entry is not None and entry.origin.etag is not None:
        headers["If-None-Match"] = entry.origin.etag
    elif entry is not None and entry.origin.last_modified is not None:
        headers["If-Modified-Since"] = entry.origin.last_modified
    return headers


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = url.join(location).copy_with(userinfo=b"", fragment=None)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ImageFetchError(
            f"{url.host} redirects to an address that cannot be understood."
        ) from error
    if target.scheme not in ("http", "https"):
        raise ImageRefused(f"{url.host} redirects to a {target.scheme[:20]!r} address.")
    return target


def _renewable(access: LabelStudioAccess) -> bool:
    return access.token is not None and is_personal_access_token(access.token.strip())
