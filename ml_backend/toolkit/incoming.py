"""The request that the toolkit is answering.

The toolkit hands a model less than Label Studio sent: 1.0.9 keeps the label config of the project
that was set up last, whichever project asks, and 2.x a project's number without the moment of its
making. Both are Flask applications, where the request in hand can be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PASSED_ON = ("X-Backend-Secret", "X-Label-Studio-Origin")
"""Headers of webhooks that belong to us."""


@dataclass(frozen=True)
class Incoming:
    """A request of Label Studio."""

    path: str  # such as "/predict"
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)  # of `PASSED_ON`


def incoming() -> Incoming | None:
    """Return the request in hand, None outside of one."""
    try:
        import flask
    except ImportError:
        return None
    if not flask.has_request_context():
        return None
    request = flask.request
    body = request.get_json(silent=True)
    return Incoming(
        path="/" + request.path.strip("/"),
        body=body if isinstance(body, dict) else {},
        headers={name: request.headers[name] for name in PASSED_ON if name in request.headers},
    )
