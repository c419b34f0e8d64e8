"""Trainings of datasets in the process of the command that asks for them."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ml_backend.bootstrap.dataset_archives import is_address
from ml_backend.bootstrap.dataset_tools import CURVES
from ml_backend.bootstrap.learning import learning_defaults
from ml_backend.bootstrap.networks import resolver
from ml_backend.bootstrap.records import open_database, prepare_records
from ml_backend.bootstrap.training import models_folder, run_session
from ml_backend.datasets import DatasetSource
from ml_backend.domain import Component
from ml_backend.engines.device_profile import open_device
from ml_backend.errors import BadRequest, Conflict, EngineError, SettingsError, TrainingError
from ml_backend.learning import EpochPoint, Lease, Session, SessionState
from ml_backend.model_files.folders import written_aside
from ml_backend.model_files.known import AUTO, model_names
from ml_backend.model_files.version_folders import Publisher
from ml_backend.processes.heartbeats import LEASE_S
from ml_backend.recipes import recipe_for
from ml_backend.service.sessions import TrainingDesk
from ml_backend.service.training_parameters import read_parameters
from ml_backend.settings import Settings
from ml_backend.store.datasets import Datasets
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions
from ml_backend.training.dataset_source import find_files
from ml_backend.training.interruption import Interruption


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A session that this process has the right to work on."""

    session: Session
    lease: Lease
    images: int | None  # that have masks; None = not known before an archive is unpacked
    base: str | None  # name of the network that it starts from; None = not looked up


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a session."""

    session: Session
    points: Sequence[EpochPoint]
    folder: Path | None  # of the new model; None = it made none
    curves: Path | None  # picture of them, in that folder


class LocalTraining:
    """Trains networks on datasets, in this process and in the records of this machine."""

    def __init__(self, settings: Settings) -> None:
        """Open the records, which are made where there are none.

        Raises:
            StoreError
        """
        prepare_records(settings)
        self._settings = settings
        self._database = open_database(settings)
        self._sessions = Sessions(self._database)
        self._owner = f"ml-backend train on {platform.node()}:{os.getpid()}"

    def begin(
        self,
        source: DatasetSource,
        *,
        parameters: Mapping[str, Any],
        model: str | None = None,
        label: str | None = None,
    ) -> Beginning:
        """Make a session about a dataset, once everything that can be checked has been.

        Args:
            source: Where it lies.
            parameters: As `read_parameters` takes them.
            model: That it starts from; None = MODEL.
            label: A word of the person's own.

        Raises:
            BadRequest: a parameter is not allowed.
            TrainingError: there are no images with masks, or the network cannot be trained so.
            ModelError, SettingsError, StoreError
        """
        usual = learning_defaults(self._settings).parameters
        fields = read_parameters(parameters, of_project=False)
        asked = replace(usual, **fields)
        base = self._resolve(model)
        recipe_for(base.architecture, asked, images=1)
        images = _count(source)
        dataset = Datasets(self._database).register(source)
        lease = self._sessions.begin(
            dataset,
            parameters=asked,
            owner=self._owner,
            lease_s=LEASE_S,
            label=label,
            base=_lasting_name(model),
        )
        return Beginning(
            session=self._session(lease.session_id), lease=lease, images=images, base=base.name
        )

    def take_up(self, session_id: str) -> Beginning:
        """Go on with a session that was stopped or has failed.

        Args:
            session_id: Its id or the beginning of it.

        Raises:
            NotFound, BadRequest: there is none, there are several, or it is about a project.
            Conflict: it is being worked on, or has completed.
            StoreError
        """
        session = TrainingDesk(Projects(self._database), self._sessions).get(session_id)
        if session.dataset is None:
            raise BadRequest(
                f"Session {session.id} is about a project of Label Studio; "
                f"`ml-backend sessions resume {session.id}` has the trainer go on with it."
            )
        lease = self._sessions.take_up(session.id, owner=self._owner, lease_s=LEASE_S)
        if lease is None:
            raise Conflict(
                f"Session {session.id} is {session.state}; only one that was stopped or has "
                "failed can be gone on with."
            )
        return Beginning(
            session=self._session(session.id), lease=lease, images=None, base=session.base
        )

    def run(
        self,
        beginning: Beginning,
        interruption: Interruption,
        listener: Callable[[Mapping[str, Any]], None],
    ) -> Result:
        """Train until the end, or until somebody wants it to stop.

        Raises:
            StoreError
        """
        run_session(self._settings, beginning.lease, interruption, listener=listener)
        session = self._session(beginning.session.id)
        folder = None
        if session.state is SessionState.COMPLETED and session.version is not None:
            publisher = Publisher(models_folder(self._settings))
            folder = publisher.folder(session.project, session.version)
        curves = None if folder is None else folder / CURVES
        return Result(
            session=session,
            points=self._sessions.curve(session.id),
            folder=folder,
            curves=curves if curves is not None and curves.is_file() else None,
        )

    def _resolve(self, model: str | None) -> Component:
        try:
            device = open_device(self._settings.training_device or self._settings.device)
        except EngineError as error:
            raise SettingsError(error.message) from None
        resolve = resolver(self._settings, str(device), self._database)
        return resolve(model or self._settings.model)

    def _session(self, session_id: str) -> Session:
        session = self._sessions.get(session_id, with_manifest=False)
        if session is None:
            raise TrainingError(f"Session {session_id} was deleted meanwhile.")
        return session


def copy_model(folder: Path, target: Path) -> Path:
    """Copy the folder of a model into the folder `target`; return where it is.

    Raises:
        TrainingError: it is there already, or cannot be written.
    """
    copied = target.expanduser() / folder.name
    try:
        with written_aside(copied) as aside:
            shutil.copytree(folder, aside, dirs_exist_ok=True)
    except FileExistsError:
        raise TrainingError(f"{copied} is there already; the model stays in {folder}.") from None
    except OSError as error:
        raise TrainingError(
            f"{copied} cannot be written ({error.strerror}); the model stays in {folder}."
        ) from error
    return copied


def dataset_source(
    directory: str,
    *,
    test: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    metadata: str | None = None,
) -> DatasetSource:
    """Return the dataset that a person names on the command line.

    Args:
        directory: A folder, an archive, or the address of one.
        test: A folder of the test set, laid out as the other: inside of `directory`, or anywhere.
        images, masks: Folders or patterns in `directory`.
        metadata: A folder of JSON files in `directory`.

    Raises:
        TrainingError: there is no such folder.
        BadRequest: what is named does not go together.
    """
    if masks is not None and images is None:
        raise BadRequest("--masks needs --images; name both, or neither.")
    if metadata is not None and images is not None:
        raise BadRequest(
            "--metadata says which masks belong to which image, and so does --images; give one."
        )
    within = partial(
        DatasetSource, train_images=images, train_annotations=masks, metadata_dir=metadata
    )
    if is_address(directory):
        return _with_test(within(root=directory), test)
    root = Path(directory).expanduser().absolute()
    if not root.exists():
        raise TrainingError(
            f"There is no folder {directory!r}; name one that holds images and their masks."
        )
    root = root.resolve()
    if test is None or root.is_file():
        return _with_test(within(root=str(root)), test)
    tested = next(
        (one.resolve() for one in (root / test, Path(test).expanduser()) if one.is_dir()), None
    )
    if tested is None:
        raise TrainingError(f"There is no folder {test!r}; name one with test images and masks.")
    if tested.is_relative_to(root):
        return _with_test(within(root=str(root)), tested.relative_to(root).as_posix())
    if metadata is not None:
        raise BadRequest(
            "The paths in the files of --metadata are relative to the dataset; with them, --test "
            "names a folder inside of it."
        )
    common = Path(os.path.commonpath([root, tested]))
    return _moved(within(root=str(root)), root, common, tested)


def _with_test(source: DatasetSource, folder: str | None) -> DatasetSource:
    """Return a dataset with a test set in `folder`, relative to its root, laid out as the other."""
    if folder is None:
        return source
    prefix = f"{folder.rstrip('/')}/"
    if source.train_annotations is None:
        return replace(source, test_images=prefix)
    return replace(
        source,
        test_images=f"{prefix}{source.train_images}",
        test_annotations=f"{prefix}{source.train_annotations}",
    )


def _moved(source: DatasetSource, root: Path, common: Path, tested: Path) -> DatasetSource:
    """Return a dataset with a test set beside it: its root is the folder that holds both."""
    prefix = f"{root.relative_to(common).as_posix()}/"

    def moved(named: str | None) -> str | None:
        return None if named is None else f"{prefix}{named}"

    test = _with_test(source, tested.relative_to(common).as_posix())
    return replace(
        test,
        root=str(common),
        train_images=moved(source.train_images) or prefix,
        train_annotations=moved(source.train_annotations),
    )


def _count(source: DatasetSource) -> int | None:
    """Return how many images with masks there are, None where that takes unpacking.

    Raises:
        TrainingError: there are none.
    """
    root = Path(source.root)
    if is_address(source.root) or root.is_file():
        return None
    return len(find_files(root, source).training.pairs)


def _lasting_name(model: str | None) -> str | None:
    """Return a model's name as it is understood in any folder."""
    if model is None or model == AUTO or model in model_names():
        return model
    path = Path(model).expanduser()
    return str(path.resolve()) if path.exists() else model
