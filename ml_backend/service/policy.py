"""Decides whether a project is trained without being asked; nothing but arithmetic.

Settings and the label config's root tag say when; the ledger and the sessions say what is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ml_backend.learning import TriggerPolicy

LOOK_AGAIN_S = 15.0  # another trainer may have heard of annotations meanwhile


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """What a decision rests on; times in seconds since the epoch."""

    now: float
    annotated: int  # tasks that count, in all
    changed: int  # of them, annotated or changed since the last session, or gone since
    last_change: float | None  # of the annotations
    last_ended: float | None  # end of the last session
    is_busy: bool  # a session waits or runs


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to train now."""

    train: bool
    reason: str  # a sentence for a person
    look_again_in_s: float  # before then nothing changes without an event


def decide(policy: TriggerPolicy, facts: PolicyFacts) -> Decision:
    """Return whether a project's new annotations are worth a session now."""
    if policy.manual:
        return _wait("Training is manual here; press Start Training.")
    if facts.is_busy:
        return _wait("A session waits or runs.")
    if facts.changed == 0:
        return _wait("No annotation has changed since the last session.")
    if facts.annotated < policy.min_tasks:
        return _wait(f"{facts.annotated} of at least {policy.min_tasks} tasks are annotated.")
    if facts.changed < policy.new_tasks:
        return _wait(
            f"{facts.changed} of {policy.new_tasks} tasks are new or changed since the last "
            "session."
        )
    quiet_for = _left(policy.quiet_s, facts.last_change, facts.now)
    pause_for = _left(policy.pause_s, facts.last_ended, facts.now)
    if quiet_for > 0:
        return _wait(
            f"People are annotating; training starts after {policy.quiet_s:g} s of quiet.",
            quiet_for,
        )
    if pause_for > 0:
        return _wait(
            f"The last session ended less than {policy.pause_s:g} s ago.",
            pause_for,
        )
    return Decision(
        train=True,
        reason=f"{facts.changed} tasks are new or changed since the last session.",
        look_again_in_s=LOOK_AGAIN_S,
    )


def _left(wanted_s: float, since: float | None, now: float) -> float:
    """Return how many of the wanted seconds since a moment are still to come."""
    if since is None or not math.isfinite(since):
        return 0.0
    return max(0.0, wanted_s - max(0.0, now - since))


def _wait(reason: str, at_most_s: float = LOOK_AGAIN_S) -> Decision:
    return Decision(train=False, reason=reason, look_again_in_s=min(LOOK_AGAIN_S, at_most_s))
