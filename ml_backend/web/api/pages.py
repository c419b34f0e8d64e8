"""Lists in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Response

from ml_backend.errors import NotFound
from ml_backend.service.sessions import MAX_LIMIT
from ml_backend.web.json_answer import json_response

ProjectQuery = Annotated[
    str | None, Query(max_length=500, description='Number, "<id>.<created_at>" or key.')
]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many.")]
AfterQuery = Annotated[
    str | None, Query(max_length=500, description='"next" of the page before this one.')
]


def page(items: Sequence[tuple[str, dict[str, Any]]], limit: int, after: str | None) -> Response:
    """Answer a page of (name, item) pairs: those after the one that is named `after`.

    Raises:
        NotFound: none is.
    """
    names = [name for name, _ in items]
    if after is not None and after not in names:
        raise NotFound(f'There is no {after[:100]!r} here; give "after" the "next" of a page.')
    start = 0 if after is None else names.index(after) + 1
    shown = items[start : start + limit]
    is_more = start + limit < len(items)
    body = {"items": [item for _, item in shown], "next": shown[-1][0] if is_more else None}
    return json_response(body)
