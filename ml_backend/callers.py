"""Who calls /api/v1, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What a caller may do; each role may do what those before it may."""

    PREDICT = "predict"  # ask models, look at everything
    TRAIN = "train"  # start, stop and delete trainings of one's own
    ADMIN = "admin"  # change what is served, delete what is others', make tokens

    def includes(self, needed: Role) -> bool:
        """Return whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sent a request."""

    name: str | None  # of the token; None = a program on this machine, without a token
    role: Role
    # in the record of what was done, where there is no name
    described_as: str = field(default="A program on this machine", repr=False)

    @property
    def who(self) -> str:
        """Return the caller for the record of what was done."""
        return self.name or self.described_as


PERSON = Caller(name=None, role=Role.ADMIN, described_as="A person")
"""Whoever can read and write the records may do everything."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token as it is recorded: the secret itself is shown once and kept nowhere."""

    id: str  # public; the first part of the token
    name: str  # unique among those that are not revoked
    role: Role
    created_at: float  # seconds since the epoch
    last_used_at: float | None
    revoked_at: float | None
    digest: str = field(repr=False)  # SHA-256 of the secret part, hex
