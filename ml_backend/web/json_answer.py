"""JSON answers."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response


def json_response(content: Any, status: int = 200) -> Response:
    """Return `content` as a JSON answer."""
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")
