"""HTTP to an address that was checked, within a time that was given."""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import certifi
import httpcore
import httpx

from ml_backend.errors import ImageFetchError, ImageTooLarge
from ml_backend.imaging.addresses import AddressGuard, port_of

_CONNECT_TIMEOUT_S = 10.0
_INFLATED_CHUNK = 1 << 20  # bytes that one compressed chunk may become at a time


class Deadline:
    """A moment after which nobody waits any more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, at least a thousandth.

        Raises:
            ImageTooLarge: when none are.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.passed()
        return max(left, 0.001)

    def passed(self) -> ImageTooLarge:
        """Return the error for a download that took too long."""
        return ImageTooLarge(
            f"Downloading the image took longer than {self.seconds:g} s; "
            "raise FETCH_TIMEOUT_S if its server is that slow."
        )

    def within(self, timeout: float | None) -> float:
        """Return the seconds to wait at most: those asked for, or those left."""
        return self.left() if timeout is None else min(timeout, self.left())


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer whose body is still on its way."""

    status: int
    headers: httpx.Headers
    chunks: Iterator[bytes]  # the body, its content encoding undone


class GuardedClient:
    """Sends requests to checked addresses only; follows no redirects."""

    def __init__(self, guard: AddressGuard) -> None:
        self.guard = guard
        # The certificates of the system (a lab's own authority) and those that come with httpx.
        self._tls = ssl.create_default_context(cafile=certifi.where())
        self._tls.load_default_certs()

    @contextmanager
    def send(
        self,
        method: str,
        url: httpx.URL,
        *,
        headers: Mapping[str, str],
        deadline: Deadline,
        trusted: bool,
        body: bytes | None = None,
    ) -> Iterator[Answer]:
        """Send a request; the answer's body is read inside the `with` block.

        Args:
            method: GET or POST.
            url: where to.
            headers: besides Host and Accept-Encoding.
            deadline: for the whole exchange, body included.
            trusted: whether `url` belongs to Label Studio's origin.
            body: what is sent.

        Raises:
            ImageFetchError: no connection, or it broke.
            ImageRefused: when the address is not allowed.
            ImageTooLarge: when the deadline passes.
        """
        addresses = self.guard.check(url, trusted=trusted)
        sent = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", **headers}
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        network = _CheckedNetwork(addresses, deadline)
        # A pool per request: a connection is never reused for a host it was not checked for.
        pool = httpcore.ConnectionPool(ssl_context=self._tls, network_backend=network)
        host = f"{url.host}:{port_of(url)}"
        with (
            _in_our_words(host, deadline),
            pool,
            pool.stream(method, target, headers=list(sent.items()), content=body) as response,
        ):
            received = httpx.Headers(response.headers)
            yield Answer(
                status=response.status,
                headers=received,
                chunks=_decoded(response.iter_stream(), received.get("content-encoding", "")),
            )


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, whatever the host resolves to by now."""

    def __init__(self, addresses: list[str], deadline: Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Return a connection to the first checked address that answers."""
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = httpcore.ConnectError(host)
        for address in self._addresses:
            try:
                stream = self._system.connect_tcp(
                    address,
                    port,
                    timeout=min(_CONNECT_TIMEOUT_S, self._deadline.within(timeout)),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A connection on which no wait goes past the deadline, however slowly bytes drip in."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout=self._deadline.within(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout=self._deadline.within(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(
            ssl_context, server_hostname=server_hostname, timeout=self._deadline.within(timeout)
        )
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class ConnectionBroke(ImageFetchError):
    """The connection broke before the image was complete."""


@contextmanager
def _in_our_words(host: str, deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        deadline.left()
        raise ImageFetchError(
            f"{host} cannot be reached from this machine ({_reason(error)}); "
            "check that it runs and that the address is right."
        ) from error
    except httpcore.TimeoutException as error:
        raise deadline.passed() from error  # the only limit that reading and writing have
    except (httpcore.NetworkError, httpcore.ProtocolError, zlib.error) as error:
        raise ConnectionBroke(
            f"The connection to {host} broke before the image was complete "
            f"({_reason(error)}); try again."
        ) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__


def _decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield a body with its content encoding undone (some storages send gzip unasked)."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        yield from chunks
        return
    if name not in ("gzip", "x-gzip", "deflate"):
        raise ImageFetchError(
            f"The image was sent with the content encoding {name[:20]!r}, which is not supported; "
            "store it without one."
        )
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for chunk in chunks:
        rest = chunk
        while rest:
            yield inflater.decompress(rest, _INFLATED_CHUNK)
            rest = inflater.unconsumed_tail
    yield inflater.flush()
    if not inflater.eof:
        raise zlib.error("the compressed body is incomplete")
