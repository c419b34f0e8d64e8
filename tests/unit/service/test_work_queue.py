"""Jobs in order of priority, once each."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.domain import Priority
from ml_backend.service.work_queue import WorkQueue

Queue = WorkQueue[str, str, int]


class FakeClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> Iterator[Queue]:
    queue: Queue = WorkQueue(clock=clock)
    yield queue
    queue.close()


def take(queue: Queue, most: Priority = Priority.BACKGROUND) -> str:
    job = queue.take(most)
    assert job is not None
    return job.key


def test_a_person_overtakes_a_batch(queue: Queue) -> None:
    queue.submit("first of a batch", "", Priority.BATCH)
    queue.submit("second of a batch", "", Priority.BATCH)
    queue.submit("opened by a person", "", Priority.INTERACTIVE)

    order = [take(queue), take(queue), take(queue)]

    assert order == ["opened by a person", "first of a batch", "second of a batch"]


def test_equal_keys_share_one_job_and_one_result(queue: Queue) -> None:
    first = queue.submit("task", "", Priority.BATCH)
    second = queue.submit("task", "", Priority.BATCH)
    job = queue.take(Priority.BATCH)
    assert job is not None

    queue.finish(job, 7)

    assert first is second
    assert second.future.result(timeout=0) == 7
    assert queue.depth() == 0


def test_a_person_who_opens_a_task_of_a_waiting_batch_makes_it_urgent(queue: Queue) -> None:
    for key in ("a", "b", "c"):
        queue.submit(key, "", Priority.BATCH)

    queue.submit("c", "", Priority.INTERACTIVE)

    assert [take(queue), take(queue), take(queue)] == ["c", "a", "b"]


def test_the_rest_of_a_batch_lets_a_new_batch_pass(queue: Queue) -> None:
    rest = queue.submit("rest", "", Priority.BATCH)
    queue.submit("new", "", Priority.BATCH)

    queue.leave(rest, Priority.BATCH)

    assert [take(queue), take(queue)] == ["new", "rest"]


def test_a_batch_that_gives_up_does_not_hold_up_a_person_who_waits_for_the_same(
    queue: Queue,
) -> None:
    shared = queue.submit("shared", "", Priority.BATCH)
    queue.submit("shared", "", Priority.INTERACTIVE)
    queue.submit("other", "", Priority.BATCH)

    queue.leave(shared, Priority.BATCH)

    assert shared.priority == Priority.INTERACTIVE
    assert [take(queue), take(queue)] == ["shared", "other"]


def test_a_thread_for_people_never_takes_a_batch(queue: Queue) -> None:
    queue.submit("batch", "", Priority.BATCH)
    taken: list[str] = []
    thread = threading.Thread(target=lambda: taken.append(take(queue, Priority.INTERACTIVE)))
    thread.start()

    queue.submit("person", "", Priority.INTERACTIVE)
    thread.join(timeout=5)

    assert taken == ["person"]
    assert take(queue) == "batch"


def test_a_job_put_back_waits_its_time(queue: Queue, clock: FakeClock) -> None:
    queue.submit("elsewhere", "", Priority.INTERACTIVE)
    job = queue.take(Priority.BATCH)
    assert job is not None
    queue.put_back(job, delay_s=5)
    queue.submit("here", "", Priority.BATCH)

    before = take(queue)
    clock.now += 6
    after = take(queue)

    assert (before, after) == ("here", "elsewhere")


def test_closing_wakes_the_threads_and_returns_what_is_left(queue: Queue) -> None:
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(Priority.INTERACTIVE)))
    thread.start()
    queue.submit("left over", "", Priority.BATCH)

    left = queue.close()
    thread.join(timeout=5)

    assert taken == [None]
    assert [job.key for job in left] == ["left over"]


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(list(Priority)), st.booleans()), max_size=30
    )
)
def test_whatever_is_asked_each_key_is_handed_out_once_and_in_order(
    calls: list[tuple[int, Priority, bool]],
) -> None:
    queue: WorkQueue[int, None, None] = WorkQueue(clock=lambda: 0.0)
    waiting: dict[int, list[Priority]] = {}
    for key, priority, leave in calls:
        job = queue.submit(key, None, priority)
        waiting.setdefault(key, []).append(priority)
        if leave:
            queue.leave(job, priority)
            waiting[key].remove(priority)
    wanted = {key: min(those, default=Priority.BACKGROUND) for key, those in waiting.items()}

    taken = [queue.take(Priority.BACKGROUND) for _ in wanted]
    queue.close()

    assert queue.take(Priority.BACKGROUND) is None
    assert sorted(wanted) == sorted(job.key for job in taken if job)
    assert sorted(wanted.values()) == [wanted[job.key] for job in taken if job]
