"""What the commands about sessions say in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ml_backend.client import Point, SessionDebug, SessionInfo
from ml_backend.learning import SessionState

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_UNSHOWN = frozenset({"rule"})  # of the gate: the documentation has it


def moment_text(at: datetime | float | None) -> str:
    """Return a moment as this machine's clock shows it, "" for none."""
    if at is None:
        return ""
    here = at.astimezone() if isinstance(at, datetime) else datetime.fromtimestamp(at)
    return here.strftime("%Y-%m-%d %H:%M:%S")


def duration_text(seconds: float) -> str:
    """Return a duration with the two units that matter."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min" + (f" {whole % _MINUTE} s" if whole < 600 else "")
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def took_text(session: SessionInfo, now: datetime) -> str:
    """Return for how long a session ran or has been running, "" before its start."""
    if session.started_training_at is None:
        return ""
    ended = session.finished_training_at if session.has_ended else None
    took = (now if ended is None else ended) - session.started_training_at
    return duration_text(took.total_seconds())


def progress_text(session: SessionInfo) -> str:
    """Return how far a session is and how long it will go on."""
    if session.state is SessionState.QUEUED:
        return "waits for a trainer"
    progress = session.progress
    parts = []
    if session.state is SessionState.RUNNING:
        parts.append("stopping" if session.stop_requested else str(progress.get("phase") or ""))
    if progress.get("epoch") is not None:
        epochs = progress.get("epochs")
        parts.append(f"epoch {progress['epoch']}" + (f" of {epochs}" if epochs else ""))
    eta_s = _number(progress.get("eta_s"))
    if session.state is SessionState.RUNNING and eta_s is not None:
        parts.append(f"about {duration_text(eta_s)} left")
    return ", ".join(part for part in parts if part)


def subject_text(session: SessionInfo) -> str:
    """Return what a session learns from: the number of a project, or the name of a dataset."""
    number = "" if session.project is None else session.project.id
    subject = session.dataset or f"project {number}"
    return f"{subject} ({session.label})" if session.label else subject


def debug_lines(debug: SessionDebug) -> Iterator[tuple[str, str]]:
    """Yield why a session is in its state, as (subject, text)."""
    lease = debug.lease
    yield "session", debug.id
    yield "state", debug.status
    yield "reason", debug.reason
    yield "what to do", debug.next_step
    if debug.queue_position is not None:
        yield "place in the queue", str(debug.queue_position)
    if lease.owner is not None:
        yield "trainer", lease.owner
    if debug.heartbeat_age_s is not None:
        yield "last sign of life", f"{duration_text(debug.heartbeat_age_s)} ago"
    if lease.seconds_left is not None:
        left = duration_text(abs(lease.seconds_left))
        yield "lease", f"{left} left" if lease.seconds_left > 0 else f"ran out {left} ago"
    yield "attempts", str(debug.attempts)
    yield "trainers that are there", ", ".join(debug.trainers) or "none"


def point_text(point: Point, epochs: Any = None) -> str:
    """Return what came of an epoch, with what was measured in it."""
    of = f" of {epochs}" if isinstance(epochs, int) else ""
    measured = (
        ("loss", point.loss),
        ("hold-out loss", point.val_loss),
        ("AP@0.5", point.ap50),
    )
    parts = [f"{name} {value:.4g}" for name, value in measured if value is not None]
    after = "" if point.seconds is None else f", after {duration_text(point.seconds)}"
    return f"epoch {point.epoch}{of}: {', '.join(parts)}{after}"


def progress_bar(session: SessionInfo, width: int = 30) -> str:
    """Return a bar of the share of steps that are done, "" where that is not known."""
    step, steps = (_number(session.progress.get(name)) for name in ("step", "steps"))
    if step is None or steps is None or steps <= 0:
        return ""
    share = min(1.0, max(0.0, step / steps))
    full = round(share * width)
    return f"[{'#' * full}{'.' * (width - full)}] {share:.0%}"


def report_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a session's report says, as (subject, text); a list has a line for each item."""
    for name, value in report.items():
        subject = name.replace("_", " ")
        if isinstance(value, Mapping):
            for inner, text in value.items():
                if inner not in _UNSHOWN and text is not None:
                    yield f"{subject}: {inner.replace('_', ' ')}", text_of(text)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            for item in value:
                yield subject, text_of(item)
        elif value is not None and value != "":
            yield subject, text_of(value)


def text_of(value: Any) -> str:
    """Return a JSON value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ", ".join(map(text_of, value))
    return str(value)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
