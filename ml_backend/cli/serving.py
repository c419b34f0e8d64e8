"""`serve` and the processes that it runs: `web`, `engine`, `trainer`."""

from __future__ import annotations

import os
import secrets
import socket
from functools import partial
from typing import Annotated

import typer

from ml_backend.cli.console import begin, complaints, sentences
from ml_backend.errors import SettingsError
from ml_backend.processes.supervisor import ChildSpec, Supervisor, open_listener
from ml_backend.settings import Settings

LifelineFd = Annotated[int | None, typer.Option(hidden=True)]
ListenFd = Annotated[int | None, typer.Option(hidden=True)]


def serve(
    toolkit: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL.PY[:CLASS]",
            help="Serve this class of the label-studio-ml toolkit instead of MODEL.",
        ),
    ] = None,
) -> None:
    """Run everything on this machine: web, engine and trainer."""
    from ml_backend.bootstrap.records import prepare_records

    with sentences():
        if toolkit is not None:
            os.environ["TOOLKIT_MODEL"] = toolkit  # of this process and its children
        settings = begin("serve")
        web_listener = _listen(settings, None)
        prepare_records(settings)
        secret = (
            settings.engine_secret.get_secret_value()
            if settings.engine_secret is not None
            else secrets.token_urlsafe(32)
        )
        children = []
        engine_url = settings.engine_url
        if engine_url is None:
            listener = open_listener("127.0.0.1", 0)
            engine_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            children.append(_child("engine", listener, {"ENGINE_SECRET": secret}))
        children.append(
            _child("web", web_listener, {"ENGINE_SECRET": secret, "ENGINE_URL": engine_url})
        )
        children.append(ChildSpec(name="trainer", arguments=["trainer"]))
        host, port = web_listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        complaints.print(f"ML backend at http://{shown}:{port}", markup=False, highlight=False)
        code = Supervisor(children).run()
    raise typer.Exit(code)


def _child(name: str, listener: socket.socket, environment: dict[str, str]) -> ChildSpec:
    return ChildSpec(
        name=name,
        arguments=[name, "--listen-fd", str(listener.fileno())],
        environment=environment,
        pass_fds=(listener.fileno(),),
    )


def web(lifeline_fd: LifelineFd = None, listen_fd: ListenFd = None) -> None:
    """Run the web process alone; ENGINE_URL says where the engine is."""

    from ml_backend.bootstrap.records import prepare_records
    from ml_backend.bootstrap.web import build_web_app
    from ml_backend.processes.web import WebServer

    with sentences():
        settings = begin("web", lifeline_fd)
        if settings.engine_url is None:
            raise SettingsError(
                "ENGINE_URL is not set; `ml-backend serve` starts an engine itself."
            )
        listener = _listen(settings, listen_fd)
        prepare_records(settings)
        WebServer(
            partial(build_web_app, settings),
            bind=f"fd://{listener.fileno()}",
            workers=settings.workers,
        ).run()


def engine(lifeline_fd: LifelineFd = None, listen_fd: ListenFd = None) -> None:
    """Run the engine alone, on HOST and PORT: it owns the device and the networks."""
    from ml_backend.bootstrap.records import prepare_records
    from ml_backend.processes.engine import serve_engine

    with sentences():
        settings = begin("engine", lifeline_fd)
        listener = _listen(settings, listen_fd)
        prepare_records(settings)
        if settings.toolkit_model is None:
            from ml_backend.bootstrap.engine import engine_app as open_app
        else:
            from ml_backend.bootstrap.toolkit_engine import toolkit_engine_app as open_app
        with open_app(settings) as application:
            serve_engine(application, listener)


def trainer(lifeline_fd: LifelineFd = None) -> None:
    """Run the trainer alone: it trains when there is something to learn, and keeps house."""
    from ml_backend.bootstrap.records import prepare_records
    from ml_backend.bootstrap.trainer import open_trainer
    from ml_backend.processes.trainer import run_trainer

    with sentences():
        settings = begin("trainer", lifeline_fd)
        prepare_records(settings)
        with open_trainer(settings) as (queue, worker):
            run_trainer(queue, worker)


def _listen(settings: Settings, listen_fd: int | None) -> socket.socket:
    if listen_fd is not None:
        return socket.socket(fileno=listen_fd)
    try:
        return open_listener(settings.host, settings.port)
    except OSError as error:
        raise SettingsError(
            f"PORT {settings.port} on HOST {settings.host} cannot be used ({error.strerror}); "
            "stop the program that has it or set PORT to another number."
        ) from None
