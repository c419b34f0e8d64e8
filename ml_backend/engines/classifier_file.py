"""A classifier's file: safetensors with all arrays, and one JSON text in the metadata.

Nothing in it is code; what does not fit together to the letter is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ml_backend.engines.calibration import Calibration
from ml_backend.engines.checkpoint_keys import safetensors_header
from ml_backend.engines.classifier import Classifier, ControlModel
from ml_backend.engines.clustering import Clustering, ClusterName
from ml_backend.engines.head_models import ClustersModel, Kind, model_of_arrays
from ml_backend.engines.heads import Head, HeadReport, Scorer, is_independent
from ml_backend.engines.scaling import Scaling
from ml_backend.errors import CheckpointInvalid

Arrays = Mapping[str, npt.NDArray[Any]]

FORMAT: Final = 1
LARGEST_FILE: Final = 512_000_000  # bytes
_METADATA: Final = "classifier"  # the only key: the order of several is not the same in each file
_WHOLE_NUMBERS: Final = ("learned", "identities")  # int64; all others are float32


def to_file(path: Path, classifier: Classifier) -> None:
    """Write a classifier; equal ones make files of equal bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {
        f"scaling/{name}": array for name, array in classifier.scaling.to_arrays().items()
    }
    records = []
    for index, (name, control) in enumerate(classifier.controls.items()):
        records.append(_record(name, control))
        arrays |= {f"{index}/{key}": array for key, array in _control_arrays(control).items()}
    record = _ClassifierRecord(
        format=FORMAT,
        embedder=classifier.embedder,
        embedder_sha256=classifier.embedder_sha256,
        controls=records,
    )
    text = msgspec.json.encode(record).decode()
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    path.write_bytes(save(contiguous, metadata={_METADATA: text}))


def from_file(path: Path) -> Classifier:
    """Read a classifier.

    Raises:
        CheckpointInvalid: it is none, of another format, damaged, or its parts do not fit.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error.strerror}.") from error
    if size > LARGEST_FILE:
        raise CheckpointInvalid(
            f"{path} has {size} bytes, a classifier at most {LARGEST_FILE}; it is something else."
        )
    _, metadata = safetensors_header(path)
    record = _read_record(path, metadata)
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"The arrays in {path} cannot be read: {error}.") from error
    for name, array in arrays.items():
        wanted = np.int64 if name.split("/")[-1] in _WHOLE_NUMBERS else np.float32
        if array.dtype != wanted or not np.isfinite(array).all():
            raise CheckpointInvalid(
                f"The array {name!r} in {path} is not all finite {np.dtype(wanted).name} numbers; "
                "the file is damaged."
            )
    try:
        return _classifier(record, _Taken(arrays))
    except CheckpointInvalid as error:
        raise CheckpointInvalid(f"{path} cannot be served: {error.message}") from error


class _HeadRecord(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kind: Kind
    settings: dict[str, bool | int | float | str]
    report: HeadReport


class _ClusteringRecord(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    next_identity: int
    names: dict[int, ClusterName]


class _ControlRecord(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    classes: list[str]
    multiple: bool
    head: _HeadRecord | None
    clustering: _ClusteringRecord | None


class _ClassifierRecord(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    format: int
    embedder: str
    embedder_sha256: str
    controls: list[_ControlRecord]


class _Format(msgspec.Struct):
    format: int


class _Taken:
    """Arrays of which each is asked for once, and none is left over."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = dict(arrays)

    def below(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        names = [name for name in self._arrays if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._arrays.pop(name) for name in names}

    def one(self, name: str, *shape: int | None) -> npt.NDArray[Any]:
        """Return an array; None in `shape` is any length."""
        array = self._arrays.pop(name, None)
        if array is None:
            raise CheckpointInvalid(f"the array {name!r} is missing.")
        fits = array.ndim == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise CheckpointInvalid(f"the array {name!r} has the shape {array.shape}.")
        return array

    def check_nothing_left(self) -> None:
        if self._arrays:
            some = ", ".join(sorted(self._arrays)[:3])
            raise CheckpointInvalid(f"it holds arrays that belong to nothing ({some}).")


def _read_record(path: Path, metadata: Mapping[str, str]) -> _ClassifierRecord:
    text = metadata.get(_METADATA)
    if text is None:
        raise CheckpointInvalid(f"{path} is no classifier of this package.")
    try:
        found = msgspec.json.decode(text, type=_Format).format
        if found != FORMAT:
            raise CheckpointInvalid(
                f"{path} has the format {found}, this version reads {FORMAT}; use the version that "
                "wrote it, or train again."
            )
        return msgspec.json.decode(text, type=_ClassifierRecord)
    except msgspec.MsgspecError as error:
        raise CheckpointInvalid(f"The description in {path} is damaged: {error}.") from error


def _record(name: str, control: ControlModel) -> _ControlRecord:
    head, clustering = control.head, control.clustering
    model = None if head is None else head.scorer.model
    return _ControlRecord(
        name=name,
        classes=list(control.classes),
        multiple=control.multiple,
        head=None
        if head is None
        else _HeadRecord(
            kind=head.kind,
            settings={} if model is None else dict(model.settings()),
            report=head.report,
        ),
        clustering=None
        if clustering is None
        else _ClusteringRecord(
            next_identity=clustering.next_identity, names=dict(control.cluster_names)
        ),
    )


def _control_arrays(control: ControlModel) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    if control.clustering is not None:
        arrays["clustering/centres"] = control.clustering.centres
        arrays["clustering/identities"] = control.clustering.identities
    if control.head is not None:
        scorer, calibration = control.head.scorer, control.head.calibration
        arrays["head/learned"] = scorer.learned
        arrays["head/fixed"] = scorer.fixed
        arrays["head/slopes"] = calibration.slopes
        arrays["head/offsets"] = calibration.offsets
        if scorer.model is not None:
            arrays |= {f"head/model/{key}": a for key, a in scorer.model.arrays().items()}
    return arrays


def _classifier(record: _ClassifierRecord, arrays: _Taken) -> Classifier:
    scaling = _scaling(arrays.below("scaling/"))
    controls = {
        control.name: _control(control, index, arrays, scaling.width)
        for index, control in enumerate(record.controls)
    }
    if len(controls) != len(record.controls):
        raise CheckpointInvalid("two of its controls have the same name.")
    arrays.check_nothing_left()
    return Classifier(
        embedder=record.embedder,
        embedder_sha256=record.embedder_sha256,
        scaling=scaling,
        controls=controls,
    )


def _scaling(arrays: Arrays) -> Scaling:
    try:
        scaling = Scaling.from_arrays(arrays)
    except ValueError as error:
        raise CheckpointInvalid(f"{error}.") from error
    if scaling.to_arrays().keys() != arrays.keys():
        raise CheckpointInvalid("its scaling has arrays that belong to nothing.")
    return scaling


def _control(record: _ControlRecord, index: int, arrays: _Taken, width: int) -> ControlModel:
    if len(set(record.classes)) != len(record.classes):
        raise CheckpointInvalid(f"the control {record.name!r} has a value twice.")
    clustering = None
    if record.clustering is not None:
        clustering = _clustering(record.clustering, f"{index}/clustering/", arrays, width)
    head = None
    if record.head is not None:
        head = _head(record, record.head, f"{index}/head/", arrays, width)
        _check_clusters(head, clustering, record.name)
    return ControlModel(
        classes=tuple(record.classes),
        multiple=record.multiple,
        head=head,
        clustering=clustering,
        cluster_names={} if record.clustering is None else record.clustering.names,
    )


def _clustering(record: _ClusteringRecord, prefix: str, arrays: _Taken, width: int) -> Clustering:
    identities = arrays.one(prefix + "identities", None)
    centres = arrays.one(prefix + "centres", len(identities), width)
    bounded = np.concatenate([[-1], identities, [record.next_identity]])
    if not (np.diff(bounded) > 0).all():
        raise CheckpointInvalid("the identities of its clusters do not rise from 0.")
    return Clustering(centres=centres, identities=identities, next_identity=record.next_identity)


def _head(
    control: _ControlRecord, record: _HeadRecord, prefix: str, arrays: _Taken, width: int
) -> Head:
    classes = len(control.classes)
    learned = arrays.one(prefix + "learned", None)
    if not (np.diff(np.concatenate([[-1], learned, [classes]])) > 0).all():
        raise CheckpointInvalid("the classes that a head learned are not among its classes.")
    independent = is_independent(control.classes, multiple=control.multiple)
    found = arrays.below(prefix + "model/")
    if (record.kind is Kind.CONSTANT) != (len(learned) == 0):
        raise CheckpointInvalid("a head has classes that nothing answers, or a model of none.")
    model = None
    if record.kind is not Kind.CONSTANT:
        model = model_of_arrays(
            record.kind,
            found,
            record.settings,
            width=width,
            learned=len(learned),
            independent=independent,
        )
    elif found:
        raise CheckpointInvalid("a head that answers the same for everything has a model.")
    return Head(
        classes=tuple(control.classes),
        multiple=control.multiple,
        scorer=Scorer(
            model=model,
            learned=learned,
            fixed=arrays.one(prefix + "fixed", classes),
            independent=independent,
        ),
        calibration=Calibration(
            slopes=arrays.one(prefix + "slopes", classes),
            offsets=arrays.one(prefix + "offsets", classes),
        ),
        report=record.report,
    )


def _check_clusters(head: Head, clustering: Clustering | None, control: str) -> None:
    model = head.scorer.model
    if isinstance(model, ClustersModel) and (
        clustering is None or len(model.table) != len(clustering)
    ):
        raise CheckpointInvalid(f"the head of {control!r} knows other clusters than there are.")
