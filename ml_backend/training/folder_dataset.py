"""What a session learns from and is judged by, built from images and masks in files.

What cannot be read, or does not fit together, is left out with a sentence, and the session goes
on; not so where that is more than a fifth of the images: then something is wrong with all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ml_backend.datasets import DATASET_CONTROLS, StoredDataset
from ml_backend.domain import FetchedFile
from ml_backend.errors import ImageError, TrainingError
from ml_backend.learning import Side, TrainingParameters
from ml_backend.store.splits import Splits
from ml_backend.training.annotated_image import AnnotatedImage
from ml_backend.training.dataset import Dataset, Decoder
from ml_backend.training.dataset_files import DatasetFiles
from ml_backend.training.dataset_pairs import FilePair
from ml_backend.training.dataset_report import Notes, report_of
from ml_backend.training.dataset_source import FoundFiles
from ml_backend.training.draft import require_usable_size
from ml_backend.training.enough_objects import with_enough
from ml_backend.training.grouping import Groups, pixels_group
from ml_backend.training.mask_reading import read_masks
from ml_backend.training.object_sizes import object_sizes
from ml_backend.training.session_limits import SessionLimits

UNREADABLE_SHARE: Final = 0.2  # of the images


@dataclass(frozen=True, kw_only=True)
class FolderDataset:
    """Builds datasets from files; the split it finds or makes is kept in `splits`."""

    decode: Decoder
    splits: Splits
    max_pixels: int  # of one label image
    # is given each image as it is made, to put its arrays where they take no memory
    keep: Callable[[AnnotatedImage], AnnotatedImage] = lambda image: image
    limits: SessionLimits = field(default_factory=SessionLimits)
    # is told before each image; may raise to stop
    on_image: Callable[[], None] = lambda: None

    def build(
        self, stored: StoredDataset, found: FoundFiles, parameters: TrainingParameters
    ) -> Dataset:
        """Return the dataset of these files, as they are now.

        Raises:
            TrainingError: too many of them cannot be read.
            StoreError: the records cannot be read.
            OSError: the disk is full or cannot be written.
        """
        notes = Notes()
        notes.left_out += [*found.training.remarks, *found.test.remarks]
        pairs = self._limited(found.training.pairs, self.limits.tasks, "for training", notes)
        test_pairs = self._limited(found.test.pairs, self.limits.hold_out, "of the test set", notes)
        read = self._read(found.files, pairs, 1, notes)
        test = self._read(found.files, test_pairs, len(pairs) + 1, notes)
        learned = self._sided(stored, _not_tested(read, test, notes))
        sides = {
            side: self._limited_side([one for one in learned if one.side is side], side, notes)
            for side in Side
        }
        training, few = with_enough(
            sides[Side.TRAINING], parameters.min_train_masks, asked_by="min_train_masks"
        )
        notes.left_out += few
        diameter, spread = object_sizes(training)
        hold_out = sides[Side.HOLD_OUT]
        masks = {pair.image: pair.mask for pair in (*pairs, *test_pairs)}
        return Dataset(
            training=training,
            hold_out=hold_out,
            test=test,
            manifest={
                "dataset": stored.name,
                "source": stored.source.canonical(),
                "controls": list(DATASET_CONTROLS),
                "images": [_entry(image, masks) for image in (*training, *hold_out)],
                "test": [_entry(image, masks) for image in test],
            },
            report=report_of(training, hold_out, notes, diameter, spread, test),
            diameter=diameter,
            diameter_spread=spread,
        )

    def _read(
        self, files: DatasetFiles, pairs: Sequence[FilePair], first: int, notes: Notes
    ) -> list[AnnotatedImage]:
        """Return the images of `pairs`, numbered from `first`, that can be read."""
        read, failed = [], 0
        for number, pair in enumerate(pairs, start=first):
            self.on_image()
            try:
                read.append(self.keep(self._image(files, pair, number)))
            except (ImageError, TrainingError) as error:
                failed += 1
                notes.left_out.append(error.message)
                _require_most_read(failed, len(pairs), error.message)
        return read

    def _image(self, files: DatasetFiles, pair: FilePair, number: int) -> AnnotatedImage:
        """Return an image with its objects; its group is the picture itself.

        Raises:
            ImageError, TrainingError: with a sentence that names the files.
        """
        try:
            image = self.decode(_local_file(files, pair.image), plane=None, channels=None)
            require_usable_size(image)
        except ImageError as error:
            raise TrainingError(f"{pair.image} is left out: {error.message}") from error
        try:
            masks = read_masks(files.path(pair.mask), max_pixels=self.max_pixels)
        except (ImageError, OSError) as error:
            said = error.message if isinstance(error, ImageError) else f"{error.strerror}."
            raise TrainingError(
                f"{pair.image} is left out, because of {pair.mask}: {said}"
            ) from error
        if masks.labels.shape != (image.height, image.width):
            height, width = masks.labels.shape
            raise TrainingError(
                f"{pair.image} is left out: it has {image.width} x {image.height} pixels, and its "
                f"masks {pair.mask} have {width} x {height}."
            )
        return AnnotatedImage(
            task_id=number,
            annotation_ids=(number,),
            group=pixels_group(image),
            side=Side.TRAINING,  # until it is settled
            image=image,
            labels=masks.labels,
            notes=masks.notes,
            name=pair.image,
        )

    def _sided(
        self, stored: StoredDataset, images: Sequence[AnnotatedImage]
    ) -> list[AnnotatedImage]:
        """Return the images with their sides, which are settled now where they were not."""
        groups = Groups.of((image.group, image.group) for image in images)
        sides = self.splits.decide(stored.key, groups.sides(self.splits.sides(stored.key)))
        return [replace(image, side=sides[image.group]) for image in images]

    def _limited(
        self, pairs: Sequence[FilePair], most: int, what: str, notes: Notes
    ) -> list[FilePair]:
        """Return so many pairs at most, the same ones each time."""
        if len(pairs) > most:
            notes.remarks.append(
                f"Of the {len(pairs)} images {what} {most} are used; a session takes no more."
            )
        chosen = sorted(pairs, key=lambda pair: _hash(pair.image))[:most]
        return sorted(chosen, key=lambda pair: pair.image)

    def _limited_side(
        self, images: Sequence[AnnotatedImage], side: Side, notes: Notes
    ) -> list[AnnotatedImage]:
        most = self.limits.training if side is Side.TRAINING else self.limits.hold_out
        if len(images) > most:
            name = "for training" if side is Side.TRAINING else "that are held out"
            notes.remarks.append(
                f"Of the {len(images)} images {name} {most} are used; a session takes no more."
            )
        chosen = sorted(images, key=lambda image: _hash(image.title))[:most]
        return sorted(chosen, key=lambda image: image.task_id)


def _not_tested(
    images: Sequence[AnnotatedImage], test: Sequence[AnnotatedImage], notes: Notes
) -> list[AnnotatedImage]:
    """Return the images whose pictures are not in the test set, whatever their files are called."""
    tested = {image.group for image in test}
    for image in images:
        if image.group in tested:
            notes.left_out.append(f"{image.title} is left out: the test set has the same picture.")
    return [image for image in images if image.group not in tested]


def _require_most_read(failed: int, images: int, said: str) -> None:
    """Check that not too many images are missing, as far as is known.

    Raises:
        TrainingError
    """
    if failed <= 1 or failed <= UNREADABLE_SHARE * images:
        return
    raise TrainingError(
        f"At least {failed} of {images} images cannot be used, too many to go on without them "
        f"({said.rstrip('.')}); mend or remove those files."
    )


def _entry(image: AnnotatedImage, masks: Mapping[str, str]) -> dict[str, Any]:
    """Return what a manifest says of an image, JSON-able."""
    return {
        "image": image.title,
        "mask": masks[image.title],
        "image_sha256": image.image.sha256,
        "labels_sha256": hashlib.sha256(image.labels.tobytes()).hexdigest(),
        "group": image.group,
        "side": image.side.value,
        "objects": image.objects,
    }


def _local_file(files: DatasetFiles, name: str) -> FetchedFile:
    path = files.path(name)
    try:
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return FetchedFile(path=path, sha256=sha256, size=path.stat().st_size)
    except OSError as error:
        raise ImageError(f"It cannot be read ({error.strerror}).") from error


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
