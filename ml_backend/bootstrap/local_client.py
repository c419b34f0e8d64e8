"""A client of the records themselves: what our own commands use where no server is named.

The web application runs in the command's own process and listens nowhere, so that a command does
the same, and is refused the same, as a program that calls a running backend.
"""

from __future__ import annotations

from ml_backend.bootstrap.records import prepare_records
from ml_backend.bootstrap.web import build_web_app
from ml_backend.callers import PERSON
from ml_backend.client import Client, Retries
from ml_backend.client.address import DEFAULT_URL
from ml_backend.client.in_process import InProcessTransport
from ml_backend.settings import Settings


def local_client(settings: Settings) -> Client:
    """Return a client that works on the records of this installation, without a server.

    Raises:
        StoreError: the records cannot be used.
    """
    prepare_records(settings)
    transport = InProcessTransport(build_web_app(settings, in_process=PERSON))
    # nothing passes by itself here: what is refused is refused at once
    return Client(DEFAULT_URL, transport=transport, retries=Retries(times=0))
