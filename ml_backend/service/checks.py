"""What `doctor` and `connect` report: one sentence per thing looked at or done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How it went."""

    OK = "ok"
    WARNING = "warning"  # works, but not as well as it should
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at or done."""

    name: str  # what, in a few words: "Label Studio", "webhook"
    status: Status
    sentence: str  # what was found
    remedy: str = ""  # what to do about it, as a command where there is one


def ok(name: str, sentence: str) -> Check:
    """Return a check that went well."""
    return Check(name=name, status=Status.OK, sentence=sentence)


def warning(name: str, sentence: str, remedy: str = "") -> Check:
    """Return a check that found something to improve."""
    return Check(name=name, status=Status.WARNING, sentence=sentence, remedy=remedy)


def failed(name: str, sentence: str, remedy: str = "") -> Check:
    """Return a check that found something broken."""
    return Check(name=name, status=Status.FAILED, sentence=sentence, remedy=remedy)


def any_failed(checks: Iterable[Check]) -> bool:
    """Return whether a command that reports these checks should exit with 1."""
    return any(check.status is Status.FAILED for check in checks)
