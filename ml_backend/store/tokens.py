"""Tokens of /api/v1: who may call it, and what for.

A token is the text `mlb_<id>_<secret>`. The id is public and finds the row; of the secret only the
SHA-256 is kept: 32 random bytes need no salt and no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError

from ml_backend.callers import Role, Token
from ml_backend.errors import BadRequest, Conflict, NotFound, StoreError
from ml_backend.store.database import Database
from ml_backend.store.schema import TokenRow

MARK = "mlb"  # what every token begins with, so that scanners for leaked secrets find it
USED_EVERY_S = 60.0  # last_used_at is not written more often
_ID_BYTES = 8
_SECRET_BYTES = 32
_MAX_TEXT_CHARS = 200
_NOBODYS = "0" * 64  # no SHA-256 of a text that anybody knows
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHAPE = re.compile(rf"{MARK}_([0-9a-f]{{{2 * _ID_BYTES}}})_([0-9a-f]{{{2 * _SECRET_BYTES}}})")


class Tokens:
    """The table of tokens."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def create(self, name: str, role: Role) -> tuple[Token, str]:
        """Make a token and return it with its text, which cannot be had again.

        Args:
            name: For people and the records: what it starts is owned by that name.
            role: What it may do.

        Raises:
            BadRequest: the name is empty, too long, or has other characters than names have.
            Conflict: a token that is not revoked has the name.
            StoreError
        """
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"A token cannot be named {name[:100]!r}; use 1 to 64 letters, digits and . _ @ -, "
                "beginning with a letter or digit."
            )
        token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_hex(_SECRET_BYTES)
        row = TokenRow(
            id=token_id,
            name=name,
            role=role.value,
            digest=_digest(secret),
            created_at=self._clock(),
            last_used_at=None,
            revoked_at=None,
        )
        token = _token(row)
        with self._database.write() as session:
            session.add(row)
            try:
                session.flush()
            except IntegrityError:  # of two at once the index lets one through
                raise Conflict(
                    f"There is a token named {name!r}; revoke it first, or take another name."
                ) from None
        return token, f"{MARK}_{token_id}_{secret}"

    def all(self) -> list[Token]:
        """Return every token, revoked ones too, the newest first.

        Raises:
            StoreError
        """
        query = select(TokenRow).order_by(TokenRow.created_at.desc(), TokenRow.id)
        with self._database.read() as session:
            return [_token(row) for row in session.scalars(query)]

    def revoke(self, name: str) -> Token:
        """End the token of that name at once and for good, and return it.

        Raises:
            NotFound: there is none, or it is revoked already.
            StoreError
        """
        statement = (
            update(TokenRow)
            .where(TokenRow.name == name, TokenRow.revoked_at.is_(None))
            .values(revoked_at=self._clock())
            .returning(TokenRow)
        )
        with self._database.write() as session:
            row = session.scalar(statement)
            if row is None:
                raise NotFound(
                    f"No token named {name[:100]!r} is in use; `ml-backend tokens list` shows all."
                )
            return _token(row)

    def authenticate(self, text: str) -> Token | None:
        """Return the token of that text, None if it is none or is revoked.

        It takes as long for an unknown id as for a wrong secret.

        Raises:
            StoreError
        """
        shape = _SHAPE.fullmatch(text) if len(text) <= _MAX_TEXT_CHARS else None
        token_id, secret = shape.groups() if shape else ("", "")
        with self._database.read() as session:
            row = session.get(TokenRow, token_id)
            token = None if row is None else _token(row)
        expected = _NOBODYS if token is None else token.digest
        is_right = hmac.compare_digest(_digest(secret), expected)
        if token is None or token.revoked_at is not None or not is_right:
            return None
        self._note_use(token)
        return token

    def has_any(self) -> bool:
        """Return whether there is a token that is not revoked.

        Raises:
            StoreError
        """
        with self._database.read() as session:
            query = select(TokenRow.id).where(TokenRow.revoked_at.is_(None)).limit(1)
            return session.scalar(query) is not None

    def _note_use(self, token: Token) -> None:
        now = self._clock()
        if token.last_used_at is not None and now - token.last_used_at < USED_EVERY_S:
            return
        is_due = or_(TokenRow.last_used_at.is_(None), TokenRow.last_used_at <= now - USED_EVERY_S)
        statement = update(TokenRow).where(TokenRow.id == token.id, is_due)
        # whoever shows the right token is let in, even while the records are busy or full
        with suppress(StoreError), self._database.write() as session:
            session.execute(statement.values(last_used_at=now))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        digest=row.digest,
    )
