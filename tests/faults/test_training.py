"""Training sessions whose processes are killed, stopped or out of disk, and what becomes of them.

Each session is real: a trainer, a process that fetches images and fine-tunes the built-in network.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml_backend.learning import ENDED, Session, SessionState, TrainingParameters
from ml_backend.model_files.folders import ASIDE
from ml_backend.model_files.version_folders import project_slug
from tests.image_server import Reply
from tests.running_backend import STOP_WITHIN_S, running_backend, wait_until_gone
from tests.training_site import PROJECT, QUICK, TrainingSite, training_site

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc"),
]

WITHIN_S = 300.0  # of a busy machine; a whole session takes seconds
LAST = 24
LONG = replace(QUICK, n_epochs=LAST, validation_interval=6)
CHANCE = random.Random()  # noqa: S311 - other moments in each run are what is wanted
LARGEST_FILE = 8_000_000  # bytes: the records fit, the weights of a network do not
TIMES = [pytest.param(3, id="3 times"), pytest.param(20, id="20 times", marks=pytest.mark.slow)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TrainingSite]:
    with training_site(tmp_path) as made:
        yield made


def wait_for(site: TrainingSite, what: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, site.log()
        time.sleep(0.02)


def wait_until_ended(site: TrainingSite, session: Session) -> Session:
    """Wait until a session has ended; return it."""
    wait_for(site, lambda: site.now(session).state in ENDED)
    return site.now(session)


def long_enough_for(times: int) -> TrainingParameters:
    """Return parameters of a training that is not over before it was killed so often."""
    return replace(LONG, n_epochs=max(LAST, 4 * times))


def epochs(site: TrainingSite, session: Session) -> list[int]:
    return [point.epoch for point in site.sessions.curve(session.id)]


def wait_for_a_moment(site: TrainingSite, session: Session) -> bool:
    """Wait until a session is at some moment of its work; False when it has ended before.

    One in four moments lies in the start of its process, the others where it gets further.
    """
    claimed, done = site.now(session).lease, len(epochs(site, session))
    wants_start = CHANCE.random() < 0.25
    pause_s = CHANCE.uniform(0, 2)

    def is_there() -> bool:
        now = site.now(session)
        has_begun = now.lease > 0 and bool(site.processes("train-session"))
        further = len(epochs(site, session)) > done or now.progress.get("phase") == "scoring"
        return now.state in ENDED or (has_begun and (wants_start or further))

    wait_for(site, is_there)
    time.sleep(pause_s)
    assert site.now(session).lease >= claimed
    return site.now(session).state not in ENDED


def assert_trained_once(site: TrainingSite, session: Session) -> None:
    """Check that a session ended well and that nothing of it was done twice."""
    ended = site.now(session)
    (version,) = site.versions.all(PROJECT)
    (activation,) = site.versions.history(PROJECT)
    models = site.data_dir / "models" / project_slug(PROJECT)
    # what a killed writer left aside goes after an hour
    folders = [path.name for path in models.iterdir() if not path.name.startswith(ASIDE)]
    points = site.sessions.curve(session.id)
    assert ended.state is SessionState.COMPLETED, ended.message
    assert ended.version == version.name
    assert version.session_id == session.id
    assert activation.components["cells"].sha256 == version.component.sha256
    assert folders == [version.name]
    assert [point.epoch for point in points] == list(
        range(1, (session.parameters.n_epochs or 0) + 1)
    )
    assert [point.step for point in points] == sorted({point.step for point in points})


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize("times", TIMES)
def test_a_training_process_that_is_killed_is_followed_by_another(
    site: TrainingSite, times: int
) -> None:
    session = site.request(long_enough_for(times))
    trainer = site.start_trainer()

    for _ in range(times):
        if wait_for_a_moment(site, session):
            kill(site.processes("train-session"))
    wait_until_ended(site, session)
    trainer.terminate()
    trainer.wait(STOP_WITHIN_S)

    assert_trained_once(site, session)
    assert wait_until_gone(site.data_dir, within_s=1) == {}


@pytest.mark.parametrize("times", TIMES)
def test_a_trainer_that_is_killed_takes_its_training_along_and_the_next_goes_on(
    site: TrainingSite, times: int
) -> None:
    session = site.request(long_enough_for(times))
    trainer = site.start_trainer()

    for _ in range(times):
        if wait_for_a_moment(site, session):
            trainer.kill()
            trainer.wait()
            assert wait_until_gone(site.data_dir) == {}
            trainer = site.start_trainer()
    wait_until_ended(site, session)
    trainer.terminate()
    trainer.wait(STOP_WITHIN_S)

    assert_trained_once(site, session)


def backend(site: TrainingSite) -> AbstractContextManager[object]:
    """Return a whole backend on a site's records."""
    return running_backend(site.folder, site.environment())


@pytest.mark.parametrize("times", TIMES)
def test_after_everything_is_killed_at_once_the_next_start_goes_on(
    site: TrainingSite, times: int
) -> None:
    session = site.request(long_enough_for(times))
    with ExitStack() as stack:
        stack.enter_context(backend(site))

        for _ in range(times):
            if wait_for_a_moment(site, session):
                site.kill_all()
                assert wait_until_gone(site.data_dir) == {}
                stack.enter_context(backend(site))
        wait_until_ended(site, session)

    assert_trained_once(site, session)
    assert wait_until_gone(site.data_dir) == {}


@pytest.mark.parametrize("victim", ["engine", "web"])
@pytest.mark.parametrize("times", TIMES)
def test_a_training_does_not_notice_that_another_process_is_killed(
    site: TrainingSite, victim: str, times: int
) -> None:
    session = site.request(long_enough_for(times))
    with backend(site):
        for _ in range(times):
            if wait_for_a_moment(site, session):
                kill(site.processes(victim)[:1])
        ended = wait_until_ended(site, session)

    assert ended.attempts == 1
    assert_trained_once(site, session)


def test_sigterm_leaves_a_checkpoint_that_the_next_trainer_goes_on_from(
    site: TrainingSite,
) -> None:
    session = site.request(LONG)
    trainer = site.start_trainer()
    wait_for(site, lambda: len(epochs(site, session)) >= 2)

    trainer.terminate()
    code = trainer.wait(STOP_WITHIN_S)
    between = site.now(session)
    trained = len(epochs(site, session))
    site.start_trainer()
    ended = wait_until_ended(site, session)

    assert code == 0
    assert between.state is SessionState.RUNNING  # nobody ended it, and it is to be had
    assert trained < LAST
    assert ended.attempts == 2
    assert_trained_once(site, session)


def test_a_stop_is_honoured_and_a_resumed_session_goes_on(site: TrainingSite) -> None:
    session = site.request(LONG)
    site.start_trainer()
    wait_for(site, lambda: len(epochs(site, session)) >= 2)

    site.sessions.request_stop(session.id)
    stopped = wait_until_ended(site, session)
    before = site.sessions.curve(session.id)
    site.sessions.resume(session.id)
    wait_until_ended(site, session)

    assert stopped.state is SessionState.STOPPED
    assert "resume" in str(stopped.message)
    assert 2 <= len(before) < LAST
    after = site.sessions.curve(session.id)
    # to the last bit, also where it repeated an epoch after its checkpoint
    assert [point.loss for point in before] == [point.loss for point in after[: len(before)]]
    assert_trained_once(site, session)


def test_a_full_disk_fails_with_a_sentence_and_the_session_can_be_resumed(
    site: TrainingSite,
) -> None:
    session = site.request()
    trainer = site.start_trainer(largest_file=LARGEST_FILE)

    failed = wait_until_ended(site, session)
    trainer.terminate()
    trainer.wait(STOP_WITHIN_S)
    site.sessions.resume(session.id)
    site.start_trainer()
    wait_until_ended(site, session)

    assert failed.state is SessionState.FAILED
    assert "disk is full" in str(failed.message)
    assert_trained_once(site, session)


def test_what_cannot_be_fetched_or_read_is_named_and_the_rest_is_learned_from(
    site: TrainingSite,
) -> None:
    site.annotate(5)
    site.annotate(6)
    site.images.routes["/5.png"] = Reply(status=404)
    site.images.routes["/6.png"] = Reply(body=b"no picture")
    session = site.request()
    site.start_trainer()

    ended = wait_until_ended(site, session)

    left_out = " ".join(ended.report["left_out"])
    assert "Task 5" in left_out
    assert "Task 6" in left_out
    assert_trained_once(site, session)


def test_a_server_that_is_away_for_a_minute_spoils_no_session(site: TrainingSite) -> None:
    there = dict(site.images.routes)
    site.images.routes = {path: Reply(status=404) for path in there}
    session = site.request()
    trainer = site.start_trainer()

    failed = wait_until_ended(site, session)
    trainer.terminate()
    trainer.wait(STOP_WITHIN_S)
    site.images.routes = there
    site.sessions.resume(session.id)
    site.start_trainer()
    ended = wait_until_ended(site, session)

    assert failed.state is SessionState.FAILED
    assert "could not be fetched" in str(failed.message)
    assert "resume the session" in str(failed.message)
    assert len(ended.manifest["task_hashes"]) == len(there)
    assert_trained_once(site, session)


def test_annotations_without_any_object_fail_with_a_sentence(tmp_path: Path) -> None:
    with training_site(tmp_path, tasks=0) as site:
        for task in (1, 2, 3):
            site.annotate(task, np.zeros((96, 96), np.int32))
        session = site.request()
        site.start_trainer()

        ended = wait_until_ended(site, session)

    assert ended.state is SessionState.FAILED
    assert "outlined object" in str(ended.message)
    assert ended.report["images"] == {"training": 2, "hold_out": 1}  # told all the same
    assert site.versions.all(PROJECT) == []
