"""The queue that wakes workers up: Huey on SQLite by default, on Redis by address.

SQL is the truth and a task is only a wake-up: its arguments are an id and nothing else, so that
a lost or repeated task does no harm.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from huey import Huey, RedisHuey, SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer

from ml_backend.errors import StoreError

QUEUE_NAME = "ml-backend"


class JsonSerializer(Serializer):  # type: ignore[misc]  # huey has no type hints
    """Writes tasks and results as JSON, where Huey's own serializer would pickle them."""

    def _serialize(self, data: Any) -> bytes:
        is_task = isinstance(data, Message)
        content = {"task": _message_to_json(data)} if is_task else {"value": data}
        try:
            return orjson.dumps(content, option=orjson.OPT_PASSTHROUGH_DATETIME)
        except TypeError as error:
            raise StoreError(
                f"A task of the queue carries what JSON cannot hold ({error}); give it an id."
            ) from error

    def _deserialize(self, data: bytes) -> Any:
        try:
            content = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise StoreError(
                "The queue holds an entry that is no JSON; empty the queue's file or Redis."
            ) from error
        if isinstance(content, dict) and "task" in content:
            return _message_from_json(content["task"])
        return content["value"] if isinstance(content, dict) else content


def make_queue(data_dir: Path, redis_url: str | None, *, name: str = QUEUE_NAME) -> Huey:
    """Return the queue: on Redis when `redis_url` is given, else in a file of `data_dir`.

    Raises:
        StoreError: the folder cannot be made.
    """
    options: dict[str, Any] = {"serializer": JsonSerializer(), "results": False, "utc": True}
    if redis_url is not None:
        return RedisHuey(name, url=redis_url, **options)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder {data_dir} cannot be made ({error.strerror}); set DATA_DIR to another."
        ) from error
    return SqliteHuey(name, filename=str(data_dir / "queue.sqlite3"), **options)


def _message_to_json(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = message._asdict()
    if fields["chord_config"] is not None:
        raise StoreError("Tasks of the queue cannot be joined into chords.")
    for follower in ("on_complete", "on_error"):
        if fields[follower] is not None:
            fields[follower] = _message_to_json(fields[follower])
    for moment in ("eta", "expires", "expires_resolved"):
        if isinstance(fields[moment], datetime):
            fields[moment] = fields[moment].isoformat()
    if isinstance(fields["expires"], timedelta):
        fields["expires"] = fields["expires"].total_seconds()
    return fields


def _message_from_json(fields: dict[str, Any]) -> Message:
    for follower in ("on_complete", "on_error"):
        if fields[follower] is not None:
            fields[follower] = _message_from_json(fields[follower])
    for moment in ("eta", "expires_resolved"):
        if fields[moment] is not None:
            fields[moment] = datetime.fromisoformat(fields[moment])
    if isinstance(fields["expires"], str):
        fields["expires"] = datetime.fromisoformat(fields["expires"])
    fields["args"] = tuple(fields["args"] or ())
    return Message(**fields)
