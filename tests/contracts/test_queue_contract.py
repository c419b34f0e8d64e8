"""What the queue promises on SQLite and on Redis."""

from __future__ import annotations

import datetime
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from huey.registry import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_backend.errors import StoreError
from ml_backend.store.queue import JsonSerializer, make_queue


@pytest.fixture(params=["sqlite", "redis"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Yield an empty queue."""
    redis_url = request.getfixturevalue("redis") if request.param == "redis" else None
    queue = make_queue(tmp_path, redis_url)
    queue.flush()
    yield queue
    queue.flush()


class TestQueue:
    def test_a_task_comes_back_with_its_id_and_runs(self, queue: Any) -> None:
        seen: list[str] = []

        @queue.task(name="work")
        def work(session_id: str) -> None:
            seen.append(session_id)

        work("session-1")
        task = queue.dequeue()
        queue.execute(task)

        assert task.args == ("session-1",)
        assert seen == ["session-1"]
        assert queue.dequeue() is None

    def test_tasks_come_in_the_order_they_were_put(self, queue: Any) -> None:
        @queue.task(name="work")
        def work(number: int) -> None: ...

        for number in range(5):
            work(number)

        assert [queue.dequeue().args for _ in range(5)] == [(n,) for n in range(5)]

    def test_a_delayed_task_waits_for_its_time(self, queue: Any) -> None:
        @queue.task(name="work", retries=2, retry_delay=5)
        def work(number: int) -> None: ...

        work.schedule((7,), delay=3600, expires=datetime.timedelta(days=1))
        queue.execute(queue.dequeue())
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)

        early = queue.read_schedule(now)
        late = queue.read_schedule(now + datetime.timedelta(hours=2))

        assert early == []
        assert [(task.args, task.retries, task.retry_delay) for task in late] == [((7,), 2, 5)]

    def test_nothing_in_it_is_pickled(self, queue: Any) -> None:
        @queue.task(name="work")
        def work(number: int) -> None: ...

        work(1)
        stored = queue.storage.dequeue()

        assert orjson.loads(stored)["task"]["name"].endswith("work")

    def test_a_pickle_put_there_by_others_is_refused(self, queue: Any) -> None:
        queue.storage.enqueue(pickle.dumps({"evil": True}))

        with pytest.raises(StoreError, match="no JSON"):
            queue.dequeue()

    def test_what_json_cannot_hold_is_refused_when_put(self, queue: Any) -> None:
        @queue.task(name="work")
        def work(thing: object) -> None: ...

        with pytest.raises(StoreError, match="give it an id"):
            work(object())


class TestJsonSerializer:
    @settings(max_examples=30)
    @given(
        message=st.builds(
            Message,
            id=st.uuids().map(str),
            name=st.text(max_size=9),
            eta=st.none() | st.datetimes(),
            retries=st.integers(0, 9),
            args=st.tuples(st.text(max_size=9), st.integers(-(2**53), 2**53)),
            kwargs=st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3),
            expires=st.none() | st.datetimes() | st.integers(1, 9),
            expires_resolved=st.none() | st.datetimes(),
            on_error=st.none() | st.just(Message(id="b", name="after", args=(1,), kwargs={})),
        )
    )
    def test_every_task_message_survives_the_round_trip(self, message: Message) -> None:
        serializer = JsonSerializer()

        assert serializer.deserialize(serializer.serialize(message)) == message

    @pytest.mark.parametrize("value", [None, True, 3, "text", {"task": 1}, [1, 2]])
    def test_so_does_every_plain_value(self, value: Any) -> None:
        serializer = JsonSerializer()

        assert serializer.deserialize(serializer.serialize(value)) == value


def test_the_default_queue_is_a_wal_file_in_the_data_folder(tmp_path: Path) -> None:
    make_queue(tmp_path / "new", None).flush()

    with sqlite3.connect(tmp_path / "new" / "queue.sqlite3") as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()

    assert mode == ("wal",)
