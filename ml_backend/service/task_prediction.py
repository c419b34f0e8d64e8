"""One task, from the address of its image to the regions that Label Studio shows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

import orjson

from ml_backend.domain import (
    CLASSIFIER,
    ChoicesControl,
    Classification,
    Component,
    Control,
    FetchedFile,
    Fetcher,
    Image,
    ImageClassifier,
    LabelConfig,
    LabelStudioAccess,
    Pixels,
    Prediction,
    Release,
    Segmentation,
    SegmentationOptions,
    Segmenter,
    Task,
    Urgency,
)
from ml_backend.errors import BadRequest
from ml_backend.imaging.cutouts import cut_out
from ml_backend.labelstudio.results import build_result
from ml_backend.labelstudio.values import read_value

_PREDICTED = frozenset({"predictions", "total_predictions"})


class Decoder(Protocol):
    """Turns a file into an image."""

    def __call__(
        self, file: FetchedFile, *, plane: int | None, channels: tuple[int, ...] | None
    ) -> Image:
        """Return the decoded image.

        Raises:
            ImageDecodeError, ImageTooLarge
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TaskPredictor:
    """Predicts one task; safe to call from many threads."""

    fetcher: Fetcher
    decode: Decoder
    segmenter: Segmenter
    classifier: ImageClassifier

    def predict(
        self,
        task: Task,
        *,
        release: Release,
        config: LabelConfig,
        access: LabelStudioAccess,
        priority: Urgency,
    ) -> Prediction:
        """Return the prediction of `task` by `release`.

        `priority` may change while the task is in work, also in the middle of an image.
        Controls with the same image, network and options share one segmentation.

        Raises:
            BadRequest: the task's data has no address where the label config says.
            ImageError, ModelError, EngineError
        """
        done: dict[tuple[str, SegmentationOptions, Component], Segmentation] = {}
        by_control: dict[str, Segmentation] = {}
        pixels: dict[tuple[str, SegmentationOptions, Component], Pixels] = {}
        of_objects: dict[str, list[Classification]] = {}
        for control in config.controls:
            address = read_value(task.data, control.value_key)
            # controls that asked for the same model may have been trained apart since
            component = release.components[control.name]
            wanted = (address, control.segmentation, component)
            if wanted not in done:
                image = self._load(address, task, control, access)
                segmentation = self.segmenter.segment(
                    image,
                    control.segmentation,
                    component=component,
                    priority=priority,
                )
                done[wanted] = _with_notes(segmentation, image.notes)
                if any(choices.objects_of for choices in config.choices):
                    pixels[wanted] = image.pixels
            by_control[control.name] = done[wanted]
            for choices in config.object_choices(control):
                learned = release.components.get(choices.name)  # older releases have none
                if (
                    learned is not None
                    and learned.architecture == CLASSIFIER
                    and done[wanted].labels.any()
                ):
                    of_objects[choices.name] = self.classifier.classify_objects(
                        list(cut_out(pixels[wanted], done[wanted].labels)),
                        choices,
                        component=learned,
                        priority=priority,
                    )
        classifications = {
            control.name: self._classify(
                task, control, release.components[control.name], access, priority
            )
            for control in config.image_choices
            if control.name in release.components
        }
        built = build_result(
            by_control,
            config,
            classifications=classifications,
            of_objects=of_objects,
            notes=config.warnings,
        )
        clusters = (found.cluster for found in classifications.values())
        return Prediction(
            result=built.regions,
            score=built.score,
            model_version=release.version,
            # Label Studio has room for one: that of the config's first control that has clusters
            cluster=next((cluster for cluster in clusters if cluster is not None), None),
        )

    def _load(self, address: str, task: Task, control: Control, access: LabelStudioAccess) -> Image:
        file = self.fetcher.fetch(address, task_id=task.id, access=access)
        options = control.segmentation
        return self.decode(file, plane=options.plane, channels=options.channels)

    def _classify(
        self,
        task: Task,
        control: ChoicesControl,
        component: Component,
        access: LabelStudioAccess,
        priority: Urgency,
    ) -> Classification:
        options = control.options
        address = read_value(task.data, control.value_key)
        return self.classifier.classify(
            lambda: self.fetcher.fetch(address, task_id=task.id, access=access),
            lambda file: self.decode(file, plane=options.plane, channels=options.channels),
            control,
            component=component,
            priority=priority,
        )


def _with_notes(segmentation: Segmentation, notes: tuple[str, ...]) -> Segmentation:
    return Segmentation(
        labels=segmentation.labels,
        scores=segmentation.scores,
        diameter=segmentation.diameter,
        notes=(*notes, *segmentation.notes),
    )


def input_hash(task: Task, config: LabelConfig) -> str:
    """Return a hash of what a prediction of `task` depends on besides its release."""
    if task.row is not None:  # a toolkit class may read anything, but what was predicted before
        seen = {name: value for name, value in task.row.items() if name not in _PREDICTED}
        whole = json.dumps([task.data, seen], sort_keys=True, default=str)
        return hashlib.sha256(whole.encode()).hexdigest()[:32]
    addresses = {
        control.value_key: _address_or_none(task, control.value_key) for control in config.served
    }
    content = orjson.dumps(addresses, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]


def _address_or_none(task: Task, value_key: str) -> str | None:
    try:
        return read_value(task.data, value_key)
    except BadRequest:  # the prediction will say so
        return None
