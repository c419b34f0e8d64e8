"""Predictions in time, once each, kept for whoever asks next."""

from __future__ import annotations

import threading
import time

from ml_backend.domain import Priority, priority_now
from tests.unit.service.conftest import PROJECT, RELEASE, Bench

PIXEL_HASH_LENGTH = 64


def wait_until_kept(bench: Bench, images: dict[int, str]) -> None:
    request = bench.request(images)
    keys = [request.key(task) for task in request.tasks]
    deadline = time.monotonic() + 20
    while len(bench.kept.get_many(keys)) < len(keys):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_task_gets_its_prediction_in_order(bench: Bench) -> None:
    bench.segmenter.gate.set()

    answers = bench.service.predict(bench.request({3: "c", 1: "a", 2: "b"}))

    assert all(entry is not None and entry.model_version == RELEASE.version for entry in answers)
    assert all(entry is not None and len(entry.result) == 1 for entry in answers)


def test_it_counts_what_it_was_asked_for(bench: Bench) -> None:
    bench.segmenter.gate.set()
    bench.service.predict(bench.request({1: "a", 2: "b"}))
    bench.service.predict(bench.request({2: "b", 3: "c"}))

    assert bench.service.asked() == (1, 3)


def test_a_failed_task_does_not_spoil_the_batch(bench: Bench) -> None:
    bench.segmenter.gate.set()

    answers = bench.service.predict(bench.request({1: "a", 2: "missing", 3: "c"}))

    assert [entry is None for entry in answers] == [False, True, False]


def test_a_failed_task_is_not_tried_again_at_once(bench: Bench) -> None:
    bench.segmenter.gate.set()
    bench.service.predict(bench.request({2: "missing"}))

    started = time.monotonic()
    answers = bench.service.predict(bench.request({2: "missing"}))

    assert answers == [None]
    assert time.monotonic() - started < 5  # answered from the record, not after a wait


def test_a_task_without_an_address_under_the_configs_key_fails_alone(bench: Bench) -> None:
    bench.segmenter.gate.set()
    request = bench.request({1: "a", 2: ""})

    answers = bench.service.predict(request)

    assert [entry is None for entry in answers] == [False, True]


def test_no_object_found_is_a_valid_prediction(bench: Bench) -> None:
    bench.segmenter.gate.set()
    bench.segmenter.empty = True

    (entry,) = bench.service.predict(bench.request({1: "a"}))

    assert entry is not None
    assert entry.to_json() == {"result": [], "score": 0.0, "model_version": RELEASE.version}


def test_identical_concurrent_requests_share_one_computation(bench: Bench) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(
            target=lambda: answers.extend(bench.service.predict(bench.request({1: "a"})))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    bench.segmenter.started.acquire(timeout=20)

    bench.segmenter.gate.set()
    for thread in threads:
        thread.join(timeout=20)

    assert len(bench.segmenter.seen) == 1
    assert len(answers) == 6
    assert None not in answers


def test_a_batch_that_runs_out_of_time_answers_and_goes_on(bench: Bench) -> None:
    images = {number: f"image {number}" for number in range(1, 6)}

    in_time = bench.service.predict(bench.request(images, budget_s=0.3))
    bench.segmenter.gate.set()
    wait_until_kept(bench, images)
    later = bench.service.predict(bench.request(images))

    assert in_time == [None] * 5
    assert None not in later
    assert len(bench.segmenter.seen) == 5  # each image once


def test_what_ran_out_of_time_waits_for_delivery_and_what_was_answered_does_not(
    bench: Bench,
) -> None:
    bench.segmenter.gate.set()
    bench.service.predict(bench.request({1: "answered"}))
    bench.segmenter.gate.clear()
    bench.service.predict(bench.request({2: "late"}, budget_s=0.2))
    bench.segmenter.gate.set()
    wait_until_kept(bench, {2: "late"})

    due = bench.deliveries.due(str(PROJECT), RELEASE.version, limit=10)

    assert [key.task_id for key, _ in due] == [2]


def test_a_person_overtakes_a_batch_at_its_next_task(bench: Bench) -> None:
    batch = {number: f"image {number}" for number in range(1, 9)}
    thread = threading.Thread(target=lambda: bench.service.predict(bench.request(batch)))
    thread.start()
    for _ in range(2):  # both threads that take batches are busy
        assert bench.segmenter.started.acquire(timeout=20)

    person = threading.Thread(target=lambda: bench.service.predict(bench.request({99: "opened"})))
    person.start()
    assert bench.segmenter.started.acquire(timeout=20)
    third = bench.segmenter.seen[2]
    bench.segmenter.gate.set()
    thread.join(timeout=20)
    person.join(timeout=20)

    assert third[1] == Priority.INTERACTIVE
    assert len(third[0]) == PIXEL_HASH_LENGTH


def test_a_task_of_a_batch_that_a_person_opens_is_urgent_while_it_is_in_work(
    bench: Bench,
) -> None:
    batch = {number: f"image {number}" for number in (1, 2)}
    thread = threading.Thread(target=lambda: bench.service.predict(bench.request(batch)))
    thread.start()
    for _ in batch:
        assert bench.segmenter.started.acquire(timeout=20)
    before = [priority_now(urgency) for urgency in bench.segmenter.urgencies]

    person = threading.Thread(target=lambda: bench.service.predict(bench.request({2: "image 2"})))
    person.start()
    wait_for_urgency(bench, Priority.INTERACTIVE)
    after = [priority_now(urgency) for urgency in bench.segmenter.urgencies]
    bench.segmenter.gate.set()
    thread.join(timeout=20)
    person.join(timeout=20)

    assert before == [Priority.BATCH, Priority.BATCH]
    assert sorted(after) == [Priority.INTERACTIVE, Priority.BATCH]
    assert len(bench.segmenter.seen) == 2


def wait_for_urgency(bench: Bench, priority: Priority) -> None:
    """Wait until an image in work is that urgent."""
    for _ in range(1000):
        if priority in [priority_now(urgency) for urgency in bench.segmenter.urgencies]:
            return
        time.sleep(0.01)
    raise AssertionError(f"nothing in work became {priority.name}")


def test_tasks_in_an_open_request_are_known_to_every_engine(bench: Bench) -> None:
    thread = threading.Thread(target=lambda: bench.service.predict(bench.request({7: "a"})))
    thread.start()
    bench.segmenter.started.acquire(timeout=20)

    busy = bench.open_requests.is_open(str(PROJECT), RELEASE.version, [7, 8])
    bench.segmenter.gate.set()
    thread.join(timeout=20)
    after = bench.open_requests.is_open(str(PROJECT), RELEASE.version, [7, 8])

    assert busy == {7}
    assert after == {7}  # Label Studio stores the answer only after it has come


def test_a_stopped_service_answers_those_who_wait(bench: Bench) -> None:
    answers: list[object] = []
    images = {number: f"image {number}" for number in range(1, 9)}
    request = bench.request(images, budget_s=3)
    thread = threading.Thread(target=lambda: answers.extend(bench.service.predict(request)))
    thread.start()
    bench.segmenter.started.acquire(timeout=20)

    bench.segmenter.gate.set()
    bench.service.__exit__()
    thread.join(timeout=20)

    assert len(answers) == 8
