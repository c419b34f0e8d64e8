"""The client: every call of /api/v1 as a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from ml_backend.callers import Caller
from ml_backend.client.address import DEFAULT_URL, authorization_of, parse_address
from ml_backend.client.answers import read_answer
from ml_backend.client.call import Call
from ml_backend.client.connection import Connection
from ml_backend.client.dataset_calls import DatasetCalls
from ml_backend.client.images import Image
from ml_backend.client.infer_options import InferOptions
from ml_backend.client.infer_result import InferResult
from ml_backend.client.inference import Inference
from ml_backend.client.load import Load
from ml_backend.client.model_calls import ModelCalls
from ml_backend.client.pages import read_page
from ml_backend.client.project_calls import ProjectCalls
from ml_backend.client.retries import Retries
from ml_backend.client.session_calls import SessionCalls
from ml_backend.client.training_parameter import ParameterInfo

TIMEOUT_S = 30.0
LONG_TIMEOUT_S = 900.0  # of calls that compute: inference, exports, uploads


class Client:
    """A connection to a running backend; safe to use from many threads.

    ```python
    from ml_backend.client import Client

    with Client("http://localhost:9090") as client:
        (found,) = client.infer("nuclei.tif", diameter=30)
    ```

    Every method raises our errors (`ml_backend.errors`) by their class, so that
    `except NotFound` works, whether the server or this side refuses.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        basic_auth: tuple[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        long_timeout_s: float = LONG_TIMEOUT_S,
        certificates: Path | str | None = None,
        transport: httpx.BaseTransport | None = None,
        retries: Retries | None = None,
    ) -> None:
        """Keep what calls need; nothing is sent yet.

        Args:
            url: Of the backend.
            token: As `ml-backend tokens create` shows it; None = without.
            basic_auth: Instead of a token: user and password.
            timeout_s: Seconds of silence after which a call is given up.
            long_timeout_s: The same where the server has to compute.
            certificates: PEM file of the authority that signed the server's certificate; None =
                those that this machine trusts.
            transport: What carries the requests; None = the network.
            retries: When to ask again; None = a few times.

        Raises:
            BadRequest: one of them cannot be right.
        """
        address = parse_address(url)
        authorization = authorization_of(token, basic_auth or address.basic_auth)
        self._connection = Connection(
            address,
            authorization=authorization,
            timeout_s=timeout_s,
            transport=transport,
            certificates=None if certificates is None else Path(certificates).expanduser(),
            retries=retries,
        )
        self._inference = Inference(self._connection, timeout_s=long_timeout_s)
        self.sessions = SessionCalls(self._connection)
        self.models = ModelCalls(self._connection, timeout_s=long_timeout_s)
        self.datasets = DatasetCalls(self._connection)
        self.projects = ProjectCalls(self._connection, timeout_s=long_timeout_s)

    @classmethod
    def from_environment(cls, url: str | None = None, **options: Any) -> Self:
        """Return a client for the backend that ML_BACKEND_URL and ML_BACKEND_TOKEN name.

        Args:
            url: Instead of ML_BACKEND_URL.
            **options: As the class takes them.

        Raises:
            SettingsError: the address is none.
        """
        from ml_backend.settings import read_client_settings  # it takes longer than all the rest

        settings = read_client_settings()
        token = settings.ml_backend_token
        return cls(
            url or settings.ml_backend_url or DEFAULT_URL,
            None if token is None else token.get_secret_value(),
            **options,
        )

    @property
    def url(self) -> str:
        """Return the address of the backend, without a password."""
        return str(self._connection.address)

    def __repr__(self) -> str:
        """Return it without its token."""
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        """Return itself; the connections are closed at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def infer(
        self,
        images: Image | Iterable[Image],
        *,
        return_flows: bool = False,
        artifact: str | None = None,
        **options: Unpack[InferOptions],
    ) -> list[InferResult]:
        """Return the instances in images, in the order of the images.

        Args:
            images: One or several of: an array (Y, X), (Y, X, C) or (C, Y, X) with C <= 4; the path
                of a file here, which is uploaded; an address, which the server fetches; a
                `ServerPath`, which the server reads.
            return_flows: Whether to return what the network says of every pixel, too.
            artifact: Folder or address on the server that relative `ServerPath`s begin at.
            **options: See `InferOptions`.

        Raises:
            BadRequest: an image is none, or an option is not known.
            ImageError: an image cannot be used.
            ModelError: there is no such model, or it cannot be served.
            EngineError: the engine could not answer.
        """
        return list(
            self.infer_each(images, return_flows=return_flows, artifact=artifact, **options)
        )

    def infer_each(
        self,
        images: Image | Iterable[Image],
        *,
        return_flows: bool = False,
        artifact: str | None = None,
        **options: Unpack[InferOptions],
    ) -> Iterator[InferResult]:
        """Yield the instances in images as they are found, holding a few images at a time.

        Arguments and errors are those of `infer`.
        """
        return self._inference.results(
            images, return_flows=return_flows, artifact=artifact, options=options
        )

    def infer_file(
        self,
        images: Image | Iterable[Image],
        output: Path | str,
        *,
        format: str = "tiff",
        return_flows: bool = False,
        artifact: str | None = None,
        **options: Unpack[InferOptions],
    ) -> Path:
        """Write the instances in images to a file as they arrive, and return the file's path.

        Args:
            images: As `infer` takes them, all of one kind.
            output: The file, or a folder for it; it is whole or not there.
            format: "npy", "png" or "tiff" for label images, "roi" for ImageJ, "geojson" for QuPath,
                "coco", or "json". Several images, or flows, become a zip file.
            return_flows: Whether to add what the network says of every pixel.
            artifact: As `infer` takes it.
            **options: See `InferOptions`.

        Raises:
            BadRequest: it cannot be written there, and as `infer`.
            ImageError, ModelError, EngineError: as `infer`.
        """
        return self._inference.file(
            images,
            output,
            format=format,
            return_flows=return_flows,
            artifact=artifact,
            options=options,
        )

    def load(self) -> Load:
        """Return how busy the server is."""
        return read_answer(self._look("/api/v1/load"), Load)

    def whoami(self) -> Caller:
        """Return whom the server takes us for, and what we may do.

        Raises:
            Unauthorized: the token is not valid.
            Forbidden: without a token, from another machine.
        """
        return read_answer(self._look("/api/v1/whoami"), Caller)

    def training_parameters(self) -> tuple[ParameterInfo, ...]:
        """Return what trainings can be told, with our defaults and the reference service's."""
        return read_page(self._look("/api/v1/training-parameters"), ParameterInfo).items

    def metrics(self) -> str:
        """Return the server's counters and latencies in Prometheus's text format."""
        return self._look("/metrics").decode("utf-8", "replace")

    def _look(self, path: str) -> bytes:
        return self._connection.ask(Call(method="GET", path=path, is_repeatable=True))
