"""What an address in task data means, and where its bytes are really fetched.

| in the task                                   | fetched from                                     |
|-----------------------------------------------|--------------------------------------------------|
| /data/upload/..., /data/local-files/?d=...    | Label Studio, whatever its prefix                |
| http://localhost:8080/data/upload/...         | the same path of Label Studio as we reach it     |
| s3://, gs://, azure-blob://                   | {Label Studio}/tasks/{id}/resolve/?fileuri=...   |
| http://, https://                             | there                                            |
| data:                                         | the address itself                               |
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httpx

from ml_backend.domain import LabelStudioAccess
from ml_backend.errors import ImageFetchError, ImageRefused
from ml_backend.imaging.addresses import AddressGuard, is_loopback_host, port_of, same_origin

CLOUD_SCHEMES = frozenset({"s3", "gs", "azure-blob"})
_SCHEME = re.compile(r"([a-z][a-z0-9+._-]*):", re.IGNORECASE)
_LABEL_STUDIO_PATH = re.compile(
    r"/(data/upload|data/local-files|storage-data|tasks/\d+/(resolve|presign))/"
)
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where the bytes of an image are."""

    url: httpx.URL  # where the download starts
    stable: str  # the same for the same image: never a presigned address
    through_label_studio: bool  # whether its bytes depend on who asks Label Studio
    immutable: bool  # whether the address leads to the same bytes for ever

    @property
    def is_local_file(self) -> bool:
        """Return whether Label Studio serves it from its local files storage."""
        return "/data/local-files/" in self.url.path


def locate(
    address: str, *, task_id: int | None, access: LabelStudioAccess, guard: AddressGuard
) -> Location:
    """Return where the image at an address of a task is fetched.

    Args:
        address: as it stands in the task; not a `data:` address.
        task_id: the task, which Label Studio needs to know for cloud storage.
        access: the Label Studio of the task.
        guard: knows which loopback hosts are meant as they are written.

    Raises:
        ImageFetchError: when Label Studio's address or the task is needed and unknown.
        ImageRefused: for schemes that are never fetched, such as file.
    """
    text = address.strip()
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _at_label_studio(text, _origin(access, text))
    name = scheme[1].lower()
    if name in CLOUD_SCHEMES:
        return _in_cloud_storage(text, task_id, _origin(access, text))
    if name not in ("http", "https"):
        raise ImageRefused(
            f"Images are not fetched from {name[:20]}: addresses; import the image by upload or "
            "through a storage of Label Studio."
        )
    url = _parse(text)
    if access.origin is not None:
        origin = _parse(access.origin)
        if same_origin(url, origin):
            return _of_label_studio(url)
        moved = _moved_to(url, origin, guard)
        if moved is not None:
            return moved
    return Location(url=url, stable=str(url), through_label_studio=False, immutable=False)


def is_data_address(address: str) -> bool:
    """Return whether an address holds the image itself."""
    return address.lstrip()[:5].lower() == "data:"


def read_data_address(address: str) -> bytes:
    """Return the bytes of a `data:` address, base64 or percent-encoded.

    Raises:
        ImageFetchError: when it is neither.
    """
    header, comma, body = address.strip()[5:].partition(",")
    if not comma:
        raise ImageFetchError("The image's data: address has no comma, so it holds no data.")
    raw = unquote_to_bytes(body)
    if not header.lower().rstrip().endswith(";base64"):
        return raw
    packed = b"".join(raw.split()).rstrip(b"=")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageFetchError(
            "The image's data: address is not valid base64; import the image again."
        ) from error


def shown(address: str | httpx.URL) -> str:
    """Return an address as a person may see it: without user, password and signatures."""
    text = str(address).strip()
    if is_data_address(text):
        return "a data: address"
    query = "" if "/data/local-files/" in text else "?"
    text = text.partition(query)[0] if query else text
    before, marker, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    text = before + marker + authority.rpartition("@")[2] + slash + path
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _origin(access: LabelStudioAccess, address: str) -> httpx.URL:
    if access.origin is None:
        raise ImageFetchError(
            f"The address {shown(address)} belongs to Label Studio, whose own address is "
            "unknown; set LABEL_STUDIO_URL (and LABEL_STUDIO_API_KEY)."
        )
    return _parse(access.origin)


def _parse(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
        return url.copy_with(userinfo=b"", fragment=None)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise ImageFetchError(
            f"The address {shown(text)} cannot be understood; correct it in the task."
        ) from error


def _at_label_studio(path: str, origin: httpx.URL) -> Location:
    """Return the location of a relative address, prefix of Label Studio added where it lacks."""
    if path.startswith("//"):
        url = _parse(f"{origin.scheme}:{path}")
        if not same_origin(url, origin):
            return Location(url=url, stable=str(url), through_label_studio=False, immutable=False)
        return _of_label_studio(url)
    prefix = origin.path.rstrip("/")
    path = "/" + path.lstrip("/")
    if prefix and path.startswith(prefix + "/"):
        path = path.removeprefix(prefix)
    return _of_label_studio(_parse(_without_slash(origin) + path))


def _of_label_studio(url: httpx.URL) -> Location:
    return Location(
        url=url,
        stable=str(url),
        through_label_studio=True,
        # Label Studio gives every upload a name of its own; a local file may be overwritten.
        immutable="/data/upload/" in url.path,
    )


def _in_cloud_storage(uri: str, task_id: int | None, origin: httpx.URL) -> Location:
    if task_id is None:
        raise ImageFetchError(
            f"The address {shown(uri)} lies in a storage of Label Studio, which is only "
            "readable for a task; this request names none."
        )
    packed = base64.urlsafe_b64encode(uri.encode()).decode()
    url = _parse(f"{_without_slash(origin)}/tasks/{task_id}/resolve/?fileuri={packed}")
    return Location(url=url, stable=uri, through_label_studio=True, immutable=False)


def _moved_to(url: httpx.URL, origin: httpx.URL, guard: AddressGuard) -> Location | None:
    """Return the location at our Label Studio of a path that it knows under a loopback name.

    Label Studio writes its own HOST into the addresses of local files. In Docker that is often
    http://localhost:8080, which on this machine is somebody else or nobody: the same path is
    asked of Label Studio as we reach it. A loopback host that was allowed by hand is meant as it
    is written, unless it names Label Studio's own port.
    """
    if not is_loopback_host(url.host):
        return None
    match = _LABEL_STUDIO_PATH.search(url.path)
    if match is None:
        return None
    if guard.allows_name(url.host) and port_of(url) != port_of(origin):
        return None
    raw = url.raw_path.decode("ascii")
    known = raw[raw.index(match[0]) :] if match[0] in raw else raw
    return _of_label_studio(_parse(_without_slash(origin) + known))


def _without_slash(origin: httpx.URL) -> str:
    return str(origin).rstrip("/")
