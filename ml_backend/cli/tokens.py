"""`tokens`: who may call /api/v1, and what for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ml_backend.callers import Role
from ml_backend.cli.console import add_row, begin, complaints, console, fail, sentences, show_table
from ml_backend.cli.session_texts import moment_text

if TYPE_CHECKING:
    from ml_backend.store.tokens import Tokens

tokens = typer.Typer(help="Make, list and revoke tokens of the API.", no_args_is_help=True)


@tokens.callback()
def about() -> None:
    """Make, list and revoke tokens: what programs show to /api/v1 to be let in."""


@tokens.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use it, such as anna or napari.")],
    role: Annotated[
        Role,
        typer.Option(
            help="predict: ask and look; train: start and stop trainings too; admin: everything."
        ),
    ],
) -> None:
    """Make a token and print it: this once, for it is kept nowhere."""
    with sentences():
        own, reserved = _open()
        if name == reserved:
            fail(f"{name!r} is BASIC_AUTH_USER, who is an admin; take another name.")
        token, text = own.create(name, role)
    typer.echo(text)  # alone on standard output, so that it can be piped
    _hint(
        f"The token {token.name!r} has the role {token.role}. Keep it now: it cannot be shown "
        "again. Programs send it as `Authorization: Bearer <token>`."
    )


@tokens.command("list")
def list_tokens() -> None:
    """List tokens, revoked ones too, the newest first."""
    with sentences():
        found = _open()[0].all()
    if not found:
        _hint("There is no token yet: /api/v1 answers programs on this machine only.")
        return
    table = Table("name", "role", "made", "last used", "state")
    for token in found:
        is_revoked = token.revoked_at is not None
        state = f"revoked {moment_text(token.revoked_at)}" if is_revoked else "in use"
        add_row(
            table,
            token.name,
            token.role,
            moment_text(token.created_at),
            moment_text(token.last_used_at) or "never",
            Text(state, style="dim" if is_revoked else "green"),
        )
    show_table(table)


@tokens.command()
def revoke(name: Annotated[str, typer.Argument(help="Of the token.")]) -> None:
    """End a token at once and for good; its name is free again."""
    with sentences():
        own = _open()[0]
        token = own.revoke(name)
        is_last = not own.has_any()
    console.print(f"token {token.name} is revoked", markup=False, highlight=False, soft_wrap=True)
    if is_last:
        _hint("No token is in use any more: /api/v1 answers programs on this machine only.")


def _open() -> tuple[Tokens, str | None]:
    """Return the tokens, and a name that none may have."""
    from ml_backend.bootstrap.tokens import open_tokens

    settings = begin("tokens")
    return open_tokens(settings), settings.basic_auth_user


def _hint(sentence: str) -> None:
    complaints.print(sentence, style="dim", markup=False, highlight=False, soft_wrap=True)
