"""The command `ml-backend`. Heavy libraries are imported inside the commands that need them."""

from __future__ import annotations

import typer

from ml_backend.cli import model_changes, model_files  # noqa: F401  # commands of `models`
from ml_backend.cli.backend import remember_server
from ml_backend.cli.checking import config, connect, doctor
from ml_backend.cli.classes import cluster, embed
from ml_backend.cli.exporting import export, export_request
from ml_backend.cli.inferring import infer
from ml_backend.cli.models import models
from ml_backend.cli.predicting import predict
from ml_backend.cli.projects import projects
from ml_backend.cli.serving import engine, serve, trainer, web
from ml_backend.cli.sessions import sessions
from ml_backend.cli.tokens import tokens
from ml_backend.cli.training import train, train_session

app = typer.Typer(
    help="Cell masks, classes and learning models for Label Studio.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals may hold secrets
    add_completion=False,
)
app.callback()(remember_server)
for command in (serve, connect, doctor, predict, embed, cluster, config, web, engine, trainer):
    app.command()(command)
app.command()(infer)
app.command()(export)
app.command()(train)
app.command(hidden=True)(export_request)
app.command(hidden=True)(train_session)
app.add_typer(models, name="models")
app.add_typer(projects, name="projects")
app.add_typer(sessions, name="sessions")
app.add_typer(tokens, name="tokens")
