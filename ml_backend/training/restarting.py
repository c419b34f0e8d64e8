"""What a session takes over from another one whose training it goes on with.

The weights come from the version that the other one made, else from its folder: the best so far,
or those of its last checkpoint. They are copied, so that the other one can be deleted. So is what
it had settled to learn from, where that is still there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import structlog

from ml_backend.domain import Component
from ml_backend.engines.catalogue import architecture_of, file_sha256
from ml_backend.engines.checkpoint_keys import checkpoint_shapes
from ml_backend.errors import CheckpointInvalid, ModelError, TrainingError
from ml_backend.learning import Session, Version
from ml_backend.model_files.folders import written_aside
from ml_backend.training.fine_tuning import BEST, CHECKPOINT
from ml_backend.training.folders import DATASET
from ml_backend.training.frozen_dataset import FrozenDataset

TAKEN_OVER: Final = "taken-over"  # in a session's folder: where it goes on from
WEIGHTS: Final = "weights.safetensors"
COMPONENT: Final = "component.json"

WriteCheckpoint = Callable[[Session, Path, Component, Path], None]
"""Writes the weights in a session's checkpoint, which started from a network, to a file."""

log = structlog.get_logger(__name__)


class Restart:
    """The beginning of a session that goes on where another one ended."""

    def __init__(
        self,
        session: Session,
        folder: Path,
        *,
        find_session: Callable[[str], Session | None],
        find_version: Callable[[Session], Version | None],
        folder_of: Callable[[str], Path],
        write_checkpoint: WriteCheckpoint,
        base: Component,
    ) -> None:
        """Keep the collaborators.

        Args:
            session: the one that begins.
            folder: its own, which outlives this process.
            find_session: returns a session by its id, None if it is gone.
            find_version: returns the version that a session made, None if it made none.
            folder_of: returns the folder of a session by its id.
            write_checkpoint: writes the weights of a checkpoint, which other networks can load.
            base: what such sessions start from, for one whose dataset was removed.
        """
        self._session, self._folder = session, folder
        self._find_session, self._find_version = find_session, find_version
        self._folder_of, self._write_checkpoint = folder_of, write_checkpoint
        self._base = base

    def start(self) -> Component:
        """Return the network that the session starts from, taken over now or by an earlier try.

        Raises:
            TrainingError: there is nothing (any more) to go on from.
            OSError: the disk is full or cannot be written.
        """
        taken = self._taken()
        if taken is not None:
            return taken
        old = self._find_session(self._session.restarted_from or "")
        if old is None:
            raise TrainingError(
                f"Session {self._session.restarted_from}, which this one goes on from, was "
                "deleted; start a new one."
            )
        version = self._find_version(old)
        start = self._of_version(old, version) or self._of_folder(old)
        if start is None:
            raise TrainingError(_nothing_left(old, version))
        self._take_dataset(old, start)
        return start

    def _taken(self) -> Component | None:
        path = self._folder / TAKEN_OVER / COMPONENT
        try:
            return Component(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _of_version(self, old: Session, version: Version | None) -> Component | None:
        if version is None:
            return None
        try:
            if file_sha256(Path(version.component.path)) == version.component.sha256:
                return version.component  # versions stay: nothing to copy
        except ModelError as error:
            log.warning("version cannot be used", session=old.id, reason=error.message)
        return None

    def _of_folder(self, old: Session) -> Component | None:
        """Return the weights in the folder of a session that made no version, copied."""
        source = self._folder_of(old.id)
        began = FrozenDataset(source / DATASET).start() or self._base_of(source / BEST)
        if began is None:
            return None
        try:
            with written_aside(self._folder / TAKEN_OVER) as aside:
                weights = aside / WEIGHTS
                try:
                    shutil.copyfile(source / BEST, weights)
                except FileNotFoundError:
                    self._write_checkpoint(old, source / CHECKPOINT, began, weights)
                component = replace(
                    began,
                    sha256=file_sha256(weights),
                    path=str(self._folder / TAKEN_OVER / WEIGHTS),
                    diameter=None,
                )
                text = json.dumps(asdict(component), ensure_ascii=False)
                (aside / COMPONENT).write_text(text, encoding="utf-8")
        except (FileNotFoundError, CheckpointInvalid, ModelError) as error:
            log.warning("nothing to go on from", session=old.id, reason=str(error))
            return None
        return component

    def _base_of(self, weights: Path) -> Component | None:
        """Return the base network, if weights are of its kind: they say themselves what they are.

        What a session learned from leaves its folder before its weights do.
        """
        try:
            architecture = architecture_of(checkpoint_shapes(weights))
        except ModelError:
            return None
        return self._base if architecture == self._base.architecture else None

    def _take_dataset(self, old: Session, start: Component) -> None:
        """Copy what the other session had settled to learn from, if it is still there."""
        with suppress(FileNotFoundError, FileExistsError):
            FrozenDataset(self._folder_of(old.id) / DATASET).copy_to(
                self._folder / DATASET, start, copy=_link_or_copy
            )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the arrays are never written to
    except OSError:  # not on every file system
        shutil.copyfile(source, target)


def _nothing_left(old: Session, version: Version | None) -> str:
    if version is not None:
        return (
            f"The model {version.name} of session {old.id} is no longer on this machine, or is "
            "damaged, so there is nothing to go on from; start a new session."
        )
    return (
        f"Session {old.id} left no checkpoint on this machine, so there is nothing to go on from; "
        "start a new session."
    )
