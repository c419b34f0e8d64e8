"""`ml-backend sessions` on records that a trainer has written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_backend.cli import app
from ml_backend.cli.session_following import lines_of
from ml_backend.cli.session_texts import (
    duration_text,
    progress_bar,
    progress_text,
    report_lines,
    took_text,
)
from ml_backend.client import EventKind, Point, SessionEvent, SessionInfo
from ml_backend.client.answers import read_answer
from ml_backend.domain import ProjectKey
from ml_backend.learning import (
    EpochPoint,
    Lease,
    Session,
    SessionState,
    TrainingParameters,
    Trigger,
)
from ml_backend.store.database import Database
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.web.api.session_shapes import session_json

PROJECT = ProjectKey(origin="http://ls.example", project_id=3, created_at=9)
CONFIG = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="cells" toName="image">'
    '<Label value="Cell"/></PolygonLabels></View>'
)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    """Yield the records of a backend that project 3 is connected to."""
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    database.migrate()
    Projects(database).record(PROJECT, hostname=None, access_token=None, label_config=CONFIG)
    yield database
    database.close()


@pytest.fixture
def sessions(records: Database) -> Sessions:
    """Return the rows that a trainer writes."""
    return Sessions(records)


@pytest.fixture
def session(sessions: Sessions) -> Session:
    """Return a session that was asked for."""
    return sessions.request(
        PROJECT,
        controls=["cells"],
        trigger=Trigger.START_TRAINING,
        parameters=TrainingParameters(n_epochs=40),
    )


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Return what runs `ml-backend sessions` on the records."""
    environment = {"DATA_DIR": str(tmp_path), "COLUMNS": "40", "LOG_LEVEL": "ERROR"}

    def run(*arguments: str, roots: str = "") -> Result:
        runner = CliRunner(env={**environment, "DATA_ROOTS": roots})
        return runner.invoke(app, ["sessions", *arguments])

    return run


def begun(sessions: Sessions, session: Session) -> Lease:
    """Return the lease of a trainer that has begun."""
    lease = sessions.claim(session.id, owner="trainer", lease_s=60)
    assert lease is not None
    return lease


def info_of(sessions: Sessions, session: Session) -> SessionInfo:
    """Return a session as the API shows it now."""
    stored = sessions.get(session.id)
    assert stored is not None
    return read_answer(orjson.dumps(session_json(stored)), SessionInfo)


def test_without_trainings_the_list_says_so(run: Any, records: Database) -> None:
    listed = run("list")

    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "No training" in listed.stderr


def test_a_list_is_uncut_and_plain_where_a_program_reads_it(
    run: Any, sessions: Sessions, session: Session
) -> None:
    begun_with = begun(sessions, session)
    message = "It is kept as a candidate: mean AP rose by 0.004, less than the 0.01 [that count]."
    sessions.finish(begun_with, SessionState.COMPLETED, message=message)

    listed = run("list")

    head, line = listed.stdout.splitlines()
    assert head.split()[:4] == ["session", "trained", "on", "state"]
    assert line.split()[:6] == [session.id, "project", "3", "completed", "start", "training"]
    assert line.rstrip().endswith(message)
    assert listed.stdout.isascii()


def test_a_list_is_filtered(run: Any, sessions: Sessions, session: Session) -> None:
    other = sessions.request(
        PROJECT, controls=["x"], trigger=Trigger.PERSON, parameters=TrainingParameters()
    )
    begun(sessions, other)

    assert session.id in run("list", "--state", "queued").stdout
    assert other.id not in run("list", "--state", "queued").stdout
    assert len(run("list", "--project", "3").stdout.splitlines()) == 3
    assert len(run("list", "--limit", "1").stdout.splitlines()) == 2


def test_a_running_session_shows_progress_and_how_long_it_will_take(
    run: Any, sessions: Sessions, session: Session
) -> None:
    sessions.note(
        begun(sessions, session),
        progress={
            "phase": "training",
            "epoch": 10,
            "epochs": 40,
            "step": 250,
            "steps": 1000,
            "eta_s": 200.0,
        },
        report={
            "left out": ["task 4: its image cannot be fetched", "task 5: skipped"],
            "hold-out": {"images": 6, "objects": 181},
        },
    )

    shown = run("show", session.id[:6]).stdout

    assert "[########......................] 25%" in shown
    assert "training, epoch 10 of 40, about 3 min 20 s left" in shown
    assert "task 4: its image cannot be fetched" in shown
    assert "hold-out: objects  181" in shown
    assert "n_epochs 40" in shown
    assert "http://ls.example#3.9" in shown


def test_an_ended_session_shows_the_sentence_of_the_gate_once(
    run: Any, sessions: Sessions, session: Session
) -> None:
    sentence = "Promoted: mean AP rose from 0.21 to 0.58 on 6 images."
    lease = begun(sessions, session)
    sessions.note(lease, report={"verdict": sentence, "gate": {"rise": 0.37}})
    sessions.finish(lease, SessionState.COMPLETED, message=sentence, version="nuclei-1-p3-v1")

    shown = run("show", session.id).stdout

    assert shown.count(sentence) == 1
    assert "nuclei-1-p3-v1" in shown
    assert "gate: rise  0.37" in shown
    assert "left" not in shown


def test_start_queues_what_is_not_queued_yet(run: Any, sessions: Sessions) -> None:
    first, second = run("start", "3"), run("start", "3")

    (session,) = sessions.find()
    assert (session.trigger, session.controls) == (Trigger.PERSON, ("cells",))
    assert session.id in first.stdout
    assert second.stdout == first.stdout


def test_start_takes_what_the_label_config_would_say(run: Any, sessions: Sessions) -> None:
    options = ("--epochs", "5", "--learning-rate", "1e-4", "--clahe", "--label", "cells")

    started = run("start", "3", *options)
    other = run("start", "3", "--epochs", "6")

    (session,) = sessions.find()
    assert session.id in started.stdout
    assert (session.label, session.owner) == ("cells", None)
    assert session.parameters == TrainingParameters(n_epochs=5, learning_rate=1e-4, clahe=True)
    assert (other.exit_code, len(other.stderr.splitlines())) == (1, 1)
    assert session.id in other.stderr


def test_start_trains_a_dataset(
    run: Any, records: Database, sessions: Sessions, tmp_path: Path
) -> None:
    folder = tmp_path / "sets" / "nuclei"
    folder.mkdir(parents=True)

    options = ("--train-images", "images/", "--train-annotations", "masks/", "--model", "cpsam")
    refused = run("start", "--dataset", str(folder), *options)
    started = run(
        "start", "--dataset", str(folder), *options, "--no-rescale", roots=str(tmp_path / "sets")
    )
    again = run("start", "--dataset", "nuclei")

    assert refused.exit_code == 1
    assert "DATA_ROOTS" in refused.stderr
    second, first = sessions.find()
    assert first.id in started.stdout
    assert second.id in again.stdout
    assert (first.dataset, first.base, first.parameters.rescale) == ("nuclei", "cpsam", False)
    shown = run("show", first.id).stdout
    assert "dataset      nuclei" in shown
    assert "starts from  cpsam" in shown
    assert f"{first.id}  nuclei" in run("list", "--dataset", "nuclei").stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Name a project, or a dataset with --dataset"),
        (["3", "--dataset", "x"], "not both"),
        (["3", "--train-images", "x"], "--train-images is for datasets"),
        (["3", "--model", "cpsam"], "--model is for datasets"),
        (["3", "--epochs", "0"], "n_epochs is 0"),
        (["--dataset", "nothing"], "There is no dataset 'nothing'"),
        (["--dataset", "/etc"], "DATA_ROOTS"),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence(
    run: Any, records: Database, sessions: Sessions, arguments: list[str], reason: str
) -> None:
    failed = run("start", *arguments)

    assert failed.exit_code == 1
    assert reason in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert sessions.find() == []


def test_a_list_is_filtered_by_status_dataset_label_and_owner(
    run: Any, sessions: Sessions, session: Session
) -> None:
    lost = sessions.request(
        PROJECT,
        controls=["x"],
        trigger=Trigger.PERSON,
        parameters=TrainingParameters(),
        dataset="nuclei",
        label="yeast",
        owner="ann",
    )
    sessions.claim(lost.id, owner="trainer", lease_s=-1)

    for options in (
        ("--status", "unknown"),
        ("--status", "unknown", "--status", "failed"),
        ("--dataset", "nuclei"),
        ("--label", "yeast", "--label", "cells"),
        ("--owner", "ann"),
    ):
        lines = run("list", *options).stdout.splitlines()
        assert len(lines) == 2, options
        assert lines[1].split()[:5] == [lost.id, "nuclei", "(yeast)", "unknown", "ann"]
    nothing = run("list", "--label", "none")
    assert (nothing.stdout, nothing.stderr) == ("", "No training is like that.\n")


def test_restart_begins_a_new_one_and_delete_forgets_the_old(
    run: Any, sessions: Sessions, session: Session
) -> None:
    early = run("restart", session.id)
    running = run("delete", session.id)
    sessions.finish(begun(sessions, session), SessionState.STOPPED, message="no", version="v1")

    restarted = run("restart", session.id[:6], "--epochs", "80")
    (new,) = sessions.find(state=SessionState.QUEUED)
    busy = run("delete", session.id)
    shown = run("show", new.id).stdout
    run("stop", new.id)
    deleted = run("delete", session.id[:6])

    assert "is queued" in early.stderr
    assert "stop it first" in running.stderr
    assert new.id in restarted.stdout
    assert (new.restarted_from, new.parameters.n_epochs) == (session.id, 80)
    assert f"goes on from  session {session.id}" in shown
    assert new.id in busy.stderr
    assert f"session {session.id} is deleted; its model v1 stays" in deleted.stdout
    assert sessions.get(session.id) is None
    assert [early.exit_code, running.exit_code, busy.exit_code, deleted.exit_code] == [1, 1, 1, 0]


def test_debug_says_why_a_session_waits(run: Any, sessions: Sessions, session: Session) -> None:
    waiting = run("debug", session.id[:6]).stdout
    waiting_lines = [line.split() for line in waiting.splitlines()]
    sessions.claim(session.id, owner="host:1", lease_s=60)
    running = run("debug", session.id).stdout

    assert "no trainer was there for the last 60 s" in waiting
    assert ["place", "in", "the", "queue", "1"] in waiting_lines
    assert ["trainers", "that", "are", "there", "none"] in waiting_lines
    assert "Trainer host:1 works on it" in running
    assert "lease" in running
    assert "last sign of life" in running


def test_watch_follows_a_session_to_its_end(sessions: Sessions, session: Session) -> None:
    def as_it_is() -> SessionEvent:
        info = info_of(sessions, session)
        kind = EventKind.END if info.has_ended else EventKind.SESSION
        return SessionEvent(kind=kind, id=None, session=info)

    def events() -> Iterator[SessionEvent]:
        yield as_it_is()
        lease = begun(sessions, session)
        yield as_it_is()
        sessions.note(lease, progress={"phase": "training", "epochs": 40})
        yield as_it_is()
        yield as_it_is()
        for epoch in (1, 2):
            point = Point(
                epoch=epoch, loss=1 / (epoch + 1), val_loss=0.7, ap50=0.5, seconds=3.0 * epoch
            )
            yield SessionEvent(kind=EventKind.POINT, id=None, point=point)
        sessions.request_stop(session.id)
        yield as_it_is()
        sessions.finish(lease, SessionState.STOPPED, message="It was stopped.")
        yield as_it_is()

    assert list(lines_of(events())) == [
        "waits for a trainer",
        "begins",
        "training",
        "epoch 1 of 40: loss 0.5, hold-out loss 0.7, AP@0.5 0.5, after 3 s",
        "epoch 2 of 40: loss 0.3333, hold-out loss 0.7, AP@0.5 0.5, after 6 s",
        "stopping",
        "stopped: It was stopped.",
    ]


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("failed", 1), ("stopped", 1)])
def test_watch_ends_with_what_came_of_it(
    run: Any, sessions: Sessions, session: Session, state: str, code: int
) -> None:
    made = "v1" if state == "completed" else None
    sessions.finish(begun(sessions, session), SessionState(state), message="Because.", version=made)

    watched = run("watch", session.id[:8])

    assert watched.exit_code == code
    end = f"{state}: Because." + ("; it made the model v1" if made else "")
    assert watched.stdout.splitlines() == [f"session {session.id}", end]


def test_stop_and_resume_say_what_happens(run: Any, sessions: Sessions, session: Session) -> None:
    lease = begun(sessions, session)

    stopping = run("stop", session.id)
    stop_seen = sessions.heartbeat(lease, 60)
    sessions.finish(lease, SessionState.STOPPED, message="It was stopped.")
    resumed = run("resume", session.id)
    stopped = run("stop", session.id)

    assert "after the batch in hand" in stopping.stdout
    assert stop_seen
    assert "waits for a trainer" in resumed.stdout
    assert "is stopped" in stopped.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show", "nothing"], "There is no session 'nothing'"),
        (["stop", "nothing"], "sessions list"),
        (["restart", "nothing"], "sessions list"),
        (["delete", "nothing"], "sessions list"),
        (["debug", "nothing"], "sessions list"),
        (["watch", "nothing"], "sessions list"),
        (["start", "4"], "There is no project '4' here; those that Label Studio has set up: 3."),
        (["list", "--project", "4"], "ml-backend connect"),
        (["curves", "x", "--output", "curves.gif"], "must end in .png or .json"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    run: Any, records: Database, arguments: list[str], reason: str
) -> None:
    failed = run(*arguments)

    assert failed.exit_code == 1
    assert reason in failed.stderr
    assert failed.stderr.startswith("error: ")
    assert len(failed.stderr.splitlines()) == 1


def test_what_has_completed_is_neither_stopped_nor_resumed(
    run: Any, sessions: Sessions, session: Session
) -> None:
    sessions.finish(begun(sessions, session), SessionState.COMPLETED, message="done")

    for what in ("stop", "resume"):
        assert run(what, session.id).exit_code == 1


def test_curves_are_a_table_a_picture_or_json(
    run: Any, sessions: Sessions, session: Session, tmp_path: Path
) -> None:
    lease = begun(sessions, session)
    for epoch in (1, 2):
        sessions.point(
            lease,
            EpochPoint(
                epoch=epoch,
                step=4 * epoch,
                loss=0.5 / epoch,
                learning_rate=1e-4,
                precision=(0.5, 0.25, 0.0) if epoch == 2 else None,
                seconds=70.0 * epoch,
            ),
        )

    table = run("curves", session.id).stdout.splitlines()
    for name in ("curves.png", "curves.json"):
        assert run("curves", session.id, "--output", str(tmp_path / name)).exit_code == 0
    (tmp_path / "no").write_text("a file in the way")
    unwritable = run("curves", session.id, "--output", str(tmp_path / "no" / "curves.png"))

    assert table[1].split() == ["1", "4", "0.5", "0.0001", "1", "min", "10", "s"]
    assert table[2].split() == [
        "2",
        "8",
        "0.25",
        "0.5",
        "0.25",
        "0",
        "0.0001",
        "2",
        "min",
        "20",
        "s",
    ]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "curves.json").read_text())["2"]["ap50"] == 0.5
    assert unwritable.exit_code == 1
    assert "cannot be written" in unwritable.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (599, "9 min 59 s"),
        (601, "10 min"),
        (3600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize("progress", [{}, {"step": 0, "steps": 0}, {"steps": 5}, {"phase": None}])
def test_progress_that_is_not_known_is_left_out(
    sessions: Sessions, session: Session, progress: dict[str, Any]
) -> None:
    before = info_of(sessions, session)
    sessions.note(begun(sessions, session), progress=progress)
    noted = info_of(sessions, session)

    assert progress_bar(noted) == ""
    assert "None" not in progress_text(noted)
    assert took_text(before, datetime.now(UTC)) == ""


def test_a_report_is_read_line_by_line() -> None:
    report = {
        "empty": [],
        "none": None,
        "unfinished": [{"task": 4, "objects": 3}],
        "nested": {"is_few": True, "share": 0.123456, "rule": {"least": 1}, "no": None},
        "deep": {"candidate": {"ap50": 0.5, "found": 7}},
    }

    assert list(report_lines(report)) == [
        ("unfinished", "task 4, objects 3"),
        ("nested: is few", "yes"),
        ("nested: share", "0.1235"),
        ("deep: candidate", "ap50 0.5, found 7"),
    ]
