"""The life of the reference fine-tuning service, call by call, through our client.

Each step does what people did with one call of that service, and checks what came of it.
"""

from __future__ import annotations

import time
import uuid
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ml_backend.client import Client, EventKind, Point, ServerPath, SessionEvent, SessionInfo
from ml_backend.client.inference import FORMATS
from ml_backend.client.training_options import DatasetLayout
from ml_backend.errors import BackendError, BadRequest, Conflict, Forbidden, NotFound
from ml_backend.learning import SessionState
from tools.checking import check, refused

ANSWERED_WITHIN_S = 10.0  # a start: it only queues


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the life is lived with."""

    dataset: Path  # a folder that this machine and the server both see under this name
    layout: DatasetLayout
    image: Path  # one of its images
    epochs: int
    samples: int | None  # crops in an epoch; None = the network's default
    patience_s: float  # for one training
    folder: Path  # for what is downloaded


@dataclass
class ReferenceLife:
    """One life, on one server."""

    client: Client
    other: Client | None  # with another's token, that may train
    material: Material
    tell: Callable[[str, str], None]  # the reference's call, what was checked
    label: str = field(default_factory=lambda: f"replay-{uuid.uuid4().hex[:8]}")

    def live(self) -> None:
        """Do everything, in order.

        Raises:
            NotAsItShouldBe: the first thing that is not.
            BackendError: the first that fails.
        """
        try:
            self._arrive()
            first, long, waiting = self._start()
            self._poll(first)
            self._stop(long, waiting)
            again = self._restart(long)
            model = self._find_model(first)
            self._infer(first, model)
            self._export(first, model)
            self._find(first, long, again)
            self._refuse(first)
            self._delete(first, long, waiting, again)
        finally:
            self._clean_up()

    def _arrive(self) -> None:
        caller = self.client.whoami()
        load = self.client.load()
        check(0.0 <= load.load <= 1.0, f"the load is {load.load}")
        check(load.slots >= 1, "no trainer is there; start one (`ml-backend serve`)")
        self.tell("get_load", f"{load.load:.2f} of 1, as {caller.who} ({caller.role})")
        check(not self._mine(), "there are sessions with a label that nobody can have used")
        self.tell("list_training_sessions", "none of this label yet")

    def _start(self) -> tuple[SessionInfo, SessionInfo, SessionInfo]:
        begun_at = time.monotonic()
        key = uuid.uuid4().hex
        first = self._started("cells", self.material.epochs, key)
        check(time.monotonic() - begun_at < ANSWERED_WITHIN_S, "the start is not answered at once")
        check(first.state in (SessionState.QUEUED, SessionState.RUNNING), f"it is {first.state}")
        check(first.dataset is not None, "the session names no dataset")
        check(self._started("cells", self.material.epochs, key).id == first.id, "it starts twice")
        long = self._started("nuclei", 10_000, None)
        waiting = self._started("nuclei", 10_000, None)
        check(len({first.id, long.id, waiting.id}) == 3, "sessions share an id")
        self.tell("start_training", "answers at once; once for one key; three with labels")
        debug = self.client.sessions.debug(waiting.id)
        check(debug.state is SessionState.QUEUED, f"the last one is {debug.state} already")
        check((debug.queue_position or 0) >= 1, "it has no place in the queue")
        self.tell("debug_task_info", f"of one that waits: {debug.reason}")
        return first, long, waiting

    def _started(self, label: str, epochs: int, key: str | None) -> SessionInfo:
        (session,) = self.client.sessions.start(
            dataset=self.material.dataset,
            layout=self.material.layout,
            n_epochs=epochs,
            n_samples=self.material.samples,
            label=f"{self.label}-{label}",
            idempotency_key=key,
        )
        return session

    def _poll(self, session: SessionInfo) -> None:
        points: dict[int, Point] = {}  # by epoch: one may be made again after a trainer has gone
        seen: set[str] = set()

        def note(event: SessionEvent) -> None:
            if event.point is not None:
                points[event.point.epoch] = event.point
            if event.session is None:
                return
            if event.session.currently_training and "running" not in seen:
                self._look_while_running(session)
            seen.add(event.session.state)
            seen.add(event.kind)

        ended = self.client.sessions.wait(
            session.id, timeout_s=self.material.patience_s, on_event=note
        )
        check(ended.state is SessionState.COMPLETED, f"it {ended.state}: {ended.message}")
        check("running" in seen and EventKind.END in seen, f"only these events came: {seen}")
        self.tell("get_training_status", f"events from start to end: {ended.message}")
        curves = self.client.sessions.curves(session.id)
        epochs = [point.epoch for point in curves]
        check(len(curves) > 0 and epochs == sorted(set(epochs)), f"the epochs are {epochs}")
        check(tuple(points.values()) == curves, "the events told other points than the curves have")
        check(all(point.loss is not None for point in curves), "an epoch has no loss")
        check(any(point.val_loss is not None for point in curves), "no epoch was validated")
        started, finished = ended.started_training_at, ended.finished_training_at
        check(started is not None and finished is not None and started < finished, "no times")
        check(not ended.currently_training, "it is still called training")
        picture = self.client.sessions.picture(session.id, self.material.folder)
        check(picture.read_bytes().startswith(b"\x89PNG"), "the curves are no picture")
        self.tell("learning-stats", f"loss {curves[0].loss:.3f} to {curves[-1].loss:.3f}")
        if self.material.layout.get("test_images"):
            check(bool(ended.test), "there is no precision on the test set")
            self.tell("get_training_status", "precision on the test set")

    def _look_while_running(self, session: SessionInfo) -> None:
        load = self.client.load()
        check(load.running >= 1 and load.load > 0, f"a training runs, and the load is {load}")
        debug = self.client.sessions.debug(session.id)
        check(debug.state is SessionState.RUNNING, f"debugging says {debug.state}")
        check(bool(debug.trainer), "nobody seems to train it")
        with refused(Conflict, "deleting what runs"):
            self.client.sessions.delete(session.id)
        self.tell("debug_task_info", f"of one that runs: {debug.reason}")
        self.tell("delete_training_session", "refused while it runs")

    def _stop(self, long: SessionInfo, waiting: SessionInfo) -> None:
        stopped = self.client.sessions.stop(waiting.id)
        check(stopped.state is SessionState.STOPPED, f"what waited is {stopped.state}")
        for event in self.client.sessions.events(long.id):
            if event.kind is EventKind.POINT:
                break
            check(event.kind is not EventKind.END, "the long training has ended by itself")
        self.client.sessions.stop(long.id)
        ended = self.client.sessions.wait(long.id, timeout_s=self.material.patience_s)
        check(ended.state is SessionState.STOPPED, f"it {ended.state}: {ended.message}")
        with refused(Conflict, "stopping what has stopped"):
            self.client.sessions.stop(long.id)
        self.tell("stop_training", "one that ran after its first epoch, and one that waited")

    def _restart(self, long: SessionInfo) -> SessionInfo:
        again = self.client.sessions.restart(long.id, n_epochs=2)
        check(again.id != long.id, "it is the same session")
        check(again.restarted_from == long.id, f"it goes on from {again.restarted_from}")
        check(again.parameters.get("n_epochs") == 2, "the epochs were not overridden")
        ended = self.client.sessions.wait(again.id, timeout_s=self.material.patience_s)
        check(ended.state is SessionState.COMPLETED, f"it {ended.state}: {ended.message}")
        epochs = [point.epoch for point in self.client.sessions.curves(again.id)]
        check(bool(epochs) and max(epochs) == 2, f"its epochs are {epochs}")
        check(ended.label == long.label, f"its label is {ended.label}")
        self.tell("restart_training", "a new session, 2 epochs, from the old one's checkpoint")
        return ended

    def _find_model(self, session: SessionInfo) -> str:
        dataset = session.dataset or ""
        made = self.client.sessions.get(session.id).version
        check(made is not None, "the session made no model")
        known = {dataset.name for dataset in self.client.datasets.find()}
        check(dataset in known, f"the dataset {dataset} is not listed")
        models = {model.name: model for model in self.client.datasets.models(dataset)}
        check(made in models, f"{made} is not among {sorted(models)}")
        model = models[str(made)]
        check(model.session == session.id and model.url is not None, f"it is {model}")
        check(model.created_at is not None and bool(model.lineage), f"it is {model}")
        self.tell("list_models_by_dataset", f"{model.name}, made from {model.lineage[-1]}")
        return model.name

    def _infer(self, session: SessionInfo, model: str) -> None:
        image = self.material.image
        (uploaded,) = self.client.infer(image, model=session.id, return_flows=True)
        check(uploaded.count > 0, "it finds nothing")
        check(uploaded.model is not None and uploaded.model.name == model, f"{uploaded.model}")
        flows = uploaded.flows
        check(flows is not None, "there are no flows")
        if flows is not None:
            parts = (flows.hsv, flows.xy, flows.cellprob, flows.final_positions)
            check(all(part is not None for part in parts), "a part of the flows is missing")
        (there,) = self.client.infer(ServerPath(str(image)), model=session.id)
        check(np.array_equal(there.masks, uploaded.masks), "a path gives other masks than a file")
        self.tell("infer", f"session id as model, {uploaded.count} objects; file and path agree")
        (by_name,) = self.client.infer(np.zeros((64, 48), np.uint16), model=model, niter=50)
        check(by_name.masks.shape == (64, 48), f"the masks are {by_name.masks.shape}")
        for name in FORMATS:
            written = self.client.infer_file(
                image, self.material.folder / f"masks.{name}", format=name, model=session.id
            )
            check(written.stat().st_size > 0, f"{written} is empty")
        self.tell("infer", f"an array; files as {', '.join(FORMATS)}")

    def _export(self, session: SessionInfo, model: str) -> None:
        written = self.client.models.export(
            session.id,
            self.material.folder / "model.zip",
            model_name="Replayed nuclei",
            description="Made while the life of the reference service was replayed.",
            authors=[{"name": "Replay", "affiliation": "Tests"}],
            uploader={"name": "Replay", "email": "replay@example.org"},
        )
        with zipfile.ZipFile(written) as package:
            check(package.testzip() is None, "the package is damaged")
            names = package.namelist()
        described = [name for name in names if name.endswith("rdf.yaml") or "bioimageio" in name]
        check(bool(described), f"nothing describes the package: {names}")
        weights = self.client.models.download(model, self.material.folder)
        check(weights.stat().st_size > 0, "the weights are empty")
        self.tell("export_model", f"a BioImage.IO package of {len(names)} files; the weights")

    def _find(self, first: SessionInfo, long: SessionInfo, again: SessionInfo) -> None:
        labels = [f"{self.label}-cells", f"{self.label}-nuclei"]
        every = self._mine()
        check(len(every) == 4, f"there are {len(every)} sessions, not 4")
        times = [session.created_at for session in every if session.created_at is not None]
        check(times == sorted(times, reverse=True), "the newest is not the first")
        for words, found in (
            ({"labels": labels[:1]}, {first.id}),
            ({"labels": labels, "status_types": ["completed"]}, {first.id, again.id}),
            ({"labels": labels, "status_types": ["running", "queued", "unknown"]}, set()),
            ({"labels": labels, "datasets": [str(first.dataset)], "page_size": 1}, None),
            ({"labels": labels, "datasets": ["no such dataset"]}, set()),
        ):
            listed = {session.id for session in self.client.sessions.find(**words)}
            expected = {session.id for session in every} if found is None else found
            check(listed == expected, f"{words} finds {listed}, not {expected}")
        stopped = self.client.sessions.find(labels=labels, status_types=["stopped"])
        check(long.id in {session.id for session in stopped}, "the stopped one is not found")
        self.tell("list_training_sessions", "by status, dataset and label; page by page")

    def _refuse(self, session: SessionInfo) -> None:
        with refused(NotFound, "a session that there is not"):
            self.client.sessions.get("0" * 32)
        with refused(BadRequest, "a number of epochs below one"):
            self._started("cells", 0, None)
        with refused(BackendError, "a model that there is not"):
            self.client.infer(np.zeros((32, 32), np.uint8), model="no-such-model")
        self.tell("(all)", "refused: unknown sessions and models, impossible parameters")
        if self.other is None:
            self.tell("delete_training_session", "NOT CHECKED of another: give --other-token-file")
            return
        with refused(Forbidden, "deleting what is another's"):
            self.other.sessions.delete(session.id)
        self.tell("delete_training_session", "refused to another than the owner")

    def _delete(self, *sessions: SessionInfo) -> None:
        for session in sessions:
            self.client.sessions.delete(session.id)
            with refused(NotFound, "what was deleted"):
                self.client.sessions.get(session.id)
        check(not self._mine(), "something is left")
        self.tell("delete_training_session", f"{len(sessions)} that have ended")

    def _mine(self) -> list[SessionInfo]:
        labels = [f"{self.label}-cells", f"{self.label}-nuclei"]
        return list(self.client.sessions.find(labels=labels))

    def _clean_up(self) -> None:
        """Leave no training behind, whatever happened."""
        with suppress(BackendError, TimeoutError):
            for session in self._mine():
                if not session.has_ended:
                    self.client.sessions.stop(session.id)
                    self.client.sessions.wait(session.id, timeout_s=60)
                self.client.sessions.delete(session.id)
