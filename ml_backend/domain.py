"""The nouns that all floors share: frozen data, enums and the protocols between floors.

Frames: *image frame* means pixels as the browser shows the image, after EXIF rotation, y down,
x right, origin at the top left corner of the top left pixel. Percent coordinates are 0..100 of
the image frame's width (x) and height (y).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

CLASSIFIER = "classifier"
"""The architecture of components that learned classes; those that only embed answer nothing."""

TOOLKIT = "toolkit"
"""The architecture of components that are a person's own class of the label-studio-ml toolkit; also
the name of the one control that stands for all that such a class answers."""

POST_PROCESSING_REVISION = "1"
"""Part of every version string: raised when the same network would answer something else."""

LabelImage = npt.NDArray[np.int32]
"""(Y, X) int32, 0 = background, 1..N = instances, consecutive, image frame."""

Pixels = npt.NDArray[Any]
"""(Y, X, C) of the detector's own data type, image frame, C >= 1."""


@dataclass(frozen=True, kw_only=True)
class ProjectKey:
    """Which project of which Label Studio: two servers, or a reset one, never share anything."""

    origin: str  # scheme://host[:port][/prefix] of Label Studio, no slash at the end
    project_id: int
    created_at: int  # seconds since the epoch

    def __str__(self) -> str:
        return f"{self.origin}#{self.project_id}.{self.created_at}"


class ControlTag(StrEnum):
    """The control tags of a label config that instance masks can feed."""

    POLYGON_LABELS = "PolygonLabels"
    BRUSH_LABELS = "BrushLabels"
    BITMASK_LABELS = "BitmaskLabels"
    RECTANGLE_LABELS = "RectangleLabels"
    ELLIPSE_LABELS = "EllipseLabels"
    KEYPOINT_LABELS = "KeyPointLabels"
    POLYGON = "Polygon"
    BRUSH = "Brush"
    BITMASK = "Bitmask"
    RECTANGLE = "Rectangle"
    ELLIPSE = "Ellipse"
    KEYPOINT = "KeyPoint"


@dataclass(frozen=True, kw_only=True)
class SegmentationOptions:
    """What decides the masks of one image: change one and the masks must be computed again."""

    model: str | None = None  # a model name or checkpoint path; None = what MODEL resolved to
    diameter: float | None = None  # pixels, image frame; None = estimated per image
    flow_threshold: float = 0.4  # largest accepted flow error; 0 = accept all
    cellprob_threshold: float = 0.0  # logit
    iterations: int | None = None  # steps of the flow dynamics; None = from the diameter
    min_size: int = 15  # pixels; smaller objects are dropped
    clahe: bool = False  # contrast-limited adaptive histogram equalisation first
    plane: int | None = None  # of a stack, 0 = first; None = the middle one
    channels: tuple[int, ...] | None = None  # 0 = first; up to 3; None = up to the first three

    def canonical(self) -> dict[str, Any]:
        """Return a JSON-able mapping that is equal exactly when the options are."""
        return {
            "model": self.model,
            "diameter": self.diameter,
            "flow_threshold": self.flow_threshold,
            "cellprob_threshold": self.cellprob_threshold,
            "iterations": self.iterations,
            "min_size": self.min_size,
            "clahe": self.clahe,
            "plane": self.plane,
            "channels": list(self.channels) if self.channels is not None else None,
        }


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control tag of a label config that masks will feed, with everything needed to do so."""

    tag: ControlTag
    name: str  # goes into from_name
    to_name: str  # name of the Image tag
    value_key: str  # key in task data that holds the image's address, e.g. "image"
    labels: tuple[str, ...]  # as the config lists them, its own or its Labels control's
    labels_name: str | None  # name of the separate Labels control of a bare tag, else None
    label: str  # the label the instances get, until classes were learned
    classes: tuple[str, ...] = ()  # labels that are told apart; empty: all get `label`
    segmentation: SegmentationOptions = field(default_factory=SegmentationOptions)
    score_threshold: float = 0.0  # 0..1; instances that score lower are left out
    max_regions: int | None = None  # above it brush and bitmask are merged; None = 100


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions:
    """What decides the choices of one image, besides what was learned."""

    embedder: str | None = None  # name or path; None = what EMBEDDER names
    plane: int | None = None  # of a stack, 0 = first; None = the middle one
    channels: tuple[int, ...] | None = None  # 0 = first; up to 3; None = up to the first three
    unsure_below: float = 0.0  # 0..1; answers that score lower are left to people
    clusters: int | None = None  # how many k-means makes; None = from the labels

    def canonical(self) -> dict[str, Any]:
        """Return a JSON-able mapping that is equal exactly when the answers to an image are.

        How many clusters a training makes is not in it: what was trained stays as it is.
        """
        return {
            "embedder": self.embedder,
            "plane": self.plane,
            "channels": list(self.channels) if self.channels is not None else None,
            "unsure_below": self.unsure_below,
        }


@dataclass(frozen=True, kw_only=True)
class ChoicesControl:
    """What classifications will feed: a `Choices` tag of a label config, or a control's labels."""

    name: str  # goes into from_name; of a control's labels: its name and "/labels"
    to_name: str  # name of the Image tag
    value_key: str  # key in task data that holds the image's address
    choices: tuple[str, ...]  # as results name them, in the config's order
    objects_of: str | None = None  # control whose single objects have choices; None = the image
    is_label: bool = False  # the choice is the label of the object's region
    multiple: bool = False  # whether one image can have several
    options: ClassificationOptions = field(default_factory=ClassificationOptions)
    cluster_tag: ClusterTag | None = None  # where people can read the number of the cluster


@dataclass(frozen=True, kw_only=True)
class ClusterTag:
    """A `Number` or `TextArea` of a label config that shows which cluster an image is in."""

    tag: str  # "number" or "textarea"
    name: str
    to_name: str


ServedControl = Control | ChoicesControl
"""A control that is served with a network or a classifier of its own."""


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """A label config, read: the controls we serve and what a person should know about it.

    Those left out with `model_skip` are not in it.
    """

    controls: tuple[Control, ...]  # fed with masks
    choices: tuple[ChoicesControl, ...] = ()  # fed with classes
    warnings: tuple[str, ...] = ()  # a sentence each: unknown options, ignored tags

    @property
    def served(self) -> tuple[ServedControl, ...]:
        """Return all controls that we feed."""
        return (*self.controls, *self.choices)

    @property
    def image_choices(self) -> tuple[ChoicesControl, ...]:
        """Return the controls whose choices are about a whole image."""
        return tuple(control for control in self.choices if control.objects_of is None)

    def object_choices(self, control: Control) -> tuple[ChoicesControl, ...]:
        """Return the controls whose choices are about the single objects of `control`."""
        return tuple(choice for choice in self.choices if choice.objects_of == control.name)


@dataclass(frozen=True, kw_only=True)
class DefaultModels:
    """What the settings name for controls that name nothing."""

    model: str = "auto"  # MODEL, for masks
    embedder: str = "auto"  # EMBEDDER, for classes


@dataclass(frozen=True, kw_only=True)
class FetchedFile:
    """A downloaded file in the image cache."""

    path: Path
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, kw_only=True)
class Image:
    """A decoded image."""

    pixels: Pixels
    sha256: str  # of the file's bytes
    notes: tuple[str, ...] = ()  # a sentence each, e.g. which plane of a stack was taken

    @property
    def height(self) -> int:
        """Return the height of the image frame in pixels (the browser's naturalHeight)."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Return the width of the image frame in pixels (the browser's naturalWidth)."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The instances of one image."""

    labels: LabelImage
    scores: npt.NDArray[np.float32]  # (N,) in 0..1; scores[i] belongs to instance i + 1
    diameter: float  # pixels, image frame: given or estimated
    notes: tuple[str, ...] = ()  # a sentence each, for the person who sees the result

    def above(self, threshold: float) -> npt.NDArray[np.bool_]:
        """Return which instances score `threshold` (0..1) or more, (N,)."""
        # float32 scores against a decimal threshold: 0.3 as float32 is not below 0.3
        return np.asarray((self.scores >= np.float32(threshold)) | (threshold <= 0), np.bool_)

    def scoring_at_least(self, threshold: float) -> Segmentation:
        """Return the instances that score `threshold` (0..1) or more, numbered anew."""
        kept = self.above(threshold)
        if kept.all():
            return self
        renumbered = np.zeros(len(self.scores) + 1, dtype=np.int32)
        renumbered[1:][kept] = np.arange(1, int(kept.sum()) + 1)
        return replace(self, labels=renumbered[self.labels], scores=self.scores[kept])


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockOfPositions:
    """Where the pixels of a part of an image end when they follow the flows."""

    rows: slice  # of the image
    columns: slice
    ends: npt.NDArray[np.int32]  # (2, rows, columns): row and column of the image, whole pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Flows:
    """What a network said of every pixel of an image, image frame."""

    xy: npt.NDArray[np.float32]  # (2, Y, X), Y and X flow, five times as long as a unit vector
    cell_probability: npt.NDArray[np.float32]  # (Y, X) logits
    # computes where every pixel ends, block by block; one that does not move ends where it is
    final_positions: Callable[[], Iterator[BlockOfPositions]]


@dataclass(frozen=True, kw_only=True)
class Component:
    """A network that can be served, by the hash of its weights."""

    name: str  # e.g. "nuclei-1", "cpsam_v2", or a checkpoint's file name
    # "residual-unet", "sam-vitl", "dino-vitl", "dino-vitb"; of embedders "descriptors", "timm";
    # "classifier" for what was learned of Choices
    architecture: str
    sha256: str  # of the weights file
    path: str  # where the weights file lies on this machine
    licence: str  # of the weights, e.g. "CC0-1.0", "CC-BY-NC-4.0", "unknown"
    diameter: float | None = None  # of the objects it was fine-tuned on, pixels, image frame


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a project serves: immutable, named by its version string."""

    version: str  # e.g. "nuclei-1-3fa9c2d1", to the letter what /setup and predictions carry
    components: Mapping[str, Component]  # by control name
    label_config: str  # the XML it was made from
    project: ProjectKey | None = None  # whose it is; None where that does not matter

    @staticmethod
    def digest(payload: bytes) -> str:
        """Return the short hash that ends a version string."""
        return hashlib.sha256(payload).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A Label Studio task as far as predictions need it."""

    id: int
    data: Mapping[str, Any]
    row: Mapping[str, Any] | None = None  # all that Label Studio said of it, for toolkit classes


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A valid entry of Label Studio's `results`."""

    result: Sequence[Mapping[str, Any]]
    score: float | None  # 0..1, the mean of the parts' scores; None when there are none
    model_version: str
    cluster: int | None = None  # of k-means; Label Studio keeps it of what is pushed only

    def to_json(self) -> dict[str, Any]:
        """Return the entry as Label Studio reads it."""
        return {
            "result": list(self.result),
            "score": 0.0 if self.score is None else self.score,
            "model_version": self.model_version,
        }


class Priority(IntEnum):
    """Who goes first on the device; lower runs earlier."""

    INTERACTIVE = 0  # a person is waiting
    BATCH = 10
    BACKGROUND = 20  # nobody waits: the rest of a batch that ran out of time


Urgency = Priority | Callable[[], Priority]
"""A priority, or what says it anew: somebody in a hurry may come to wait for work of a batch."""


def priority_now(urgency: Urgency) -> Priority:
    """Return the priority as it is at this moment."""
    return urgency if isinstance(urgency, Priority) else urgency()


@dataclass(frozen=True, kw_only=True)
class LabelStudioAccess:
    """How to reach the Label Studio that a task came from."""

    origin: str | None  # scheme://host[:port][/prefix], no slash at the end; None = unknown
    token: str | None = field(default=None, repr=False)  # legacy token or personal access token


def is_personal_access_token(token: str) -> bool:
    """Return whether a token is a JSON web token, as personal access tokens are; else legacy."""
    return token.count(".") == 2


class Fetcher(Protocol):
    """Turns an address in task data into a file in the cache."""

    def fetch(self, url: str, *, task_id: int | None, access: LabelStudioAccess) -> FetchedFile:
        """Return the file at `url`, from the cache when it is there.

        Raises:
            ImageFetchError, ImageRefused, ImageTooLarge
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What a classifier says of one image for one `Choices` control."""

    choices: tuple[str, ...]  # empty = it abstains
    score: float | None  # 0..1, calibrated: how likely the choices are right; None = no idea
    cluster: int | None = None  # identity of the k-means cluster, where there are clusters


class ImageClassifier(Protocol):
    """Answers for `Choices` controls; safe to call from many threads."""

    def classify(
        self,
        fetch: Callable[[], FetchedFile],
        decode: Callable[[FetchedFile], Image],
        control: ChoicesControl,
        *,
        component: Component,
        priority: Urgency,
    ) -> Classification:
        """Return what `component` says of an image; blocks until it is there.

        `fetch` and `decode` are called only where they are needed: not where nothing was learned
        yet, or where the image's embedding is at hand.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        ...

    def classify_objects(
        self,
        cutouts: Sequence[Pixels],
        control: ChoicesControl,
        *,
        component: Component,
        priority: Urgency,
    ) -> list[Classification]:
        """Return what `component` says of single objects, each cut out of its image.

        Raises:
            ImageError, ModelError, OutOfMemory, EngineError
        """
        ...


class Segmenter(Protocol):
    """Finds the instances in an image; safe to call from many threads."""

    def segment(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> Segmentation:
        """Return the instances; blocks until they are there.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        ...


class FlowSegmenter(Segmenter, Protocol):
    """A segmenter that can also hand out what its network said."""

    def segment_with_flows(
        self,
        image: Image,
        options: SegmentationOptions,
        *,
        component: Component,
        priority: Urgency,
    ) -> tuple[Segmentation, Flows]:
        """Return what `segment` returns, and the flows that it was made of.

        Raises:
            ModelError, OutOfMemory, EngineError
        """
        ...
