"""Image and mask files that belong together because a JSON file says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ml_backend.errors import TrainingError
from ml_backend.training.dataset_files import DatasetFiles
from ml_backend.training.dataset_pairs import FilePair, Pairs

IMAGE: Final = "image_path"
MASK: Final = "mask_path"
LARGEST_FILE: Final = 20_000_000  # bytes
MOST_PAIRS: Final = 100_000


class _Unusable(Exception):
    """A JSON file, or an entry of it, says nothing that can be used."""


def pairs_of_metadata(files: DatasetFiles, names: Sequence[str], metadata_dir: str) -> Pairs:
    """Return the pairs that the JSON files in a folder of a dataset name.

    A file holds an object with `image_path` and `mask_path`, relative to the dataset's root; both
    may be lists of the same length; or it holds a list of such objects.

    Args:
        files: The dataset.
        names: Of the files in that folder, and perhaps of others.
        metadata_dir: The folder.

    Raises:
        TrainingError: nothing in it names an image and its masks.
    """
    folder = "/".join(part for part in metadata_dir.split("/") if part not in ("", "."))
    prefix = f"{folder}/" if folder else ""
    if ".." in metadata_dir.split("/") or metadata_dir.startswith("/"):
        raise TrainingError(
            f"{metadata_dir!r} leads out of the dataset; name a folder relative to its root."
        )
    pairs: dict[str, FilePair] = {}
    remarks: list[str] = []
    found = [name for name in names if name.startswith(prefix) and name.lower().endswith(".json")]
    for name in found:
        try:
            for pair in _pairs_in(files, name):
                both = (pair.image, pair.mask)
                missing = next((one for one in both if not files.has(one)), None)
                if missing is not None:
                    remarks.append(
                        f"{pair.image} is left out: {name} names {missing}, and there is no such "
                        "file in the dataset."
                    )
                elif pairs.setdefault(pair.image, pair) != pair:
                    remarks.append(
                        f"{pair.mask} is left out: {pair.image} has the masks "
                        f"{pairs[pair.image].mask} already."
                    )
                if len(pairs) > MOST_PAIRS:
                    raise TrainingError(f"{metadata_dir} names more than {MOST_PAIRS} images.")
        except _Unusable as error:
            remarks.append(f"{name} is left out: {error}")
    if not pairs:
        said = f" ({remarks[0].rstrip('.')})" if remarks else ""
        raise TrainingError(
            f"None of the {len(found)} JSON files in {metadata_dir!r} of {files.root} names an "
            f"{IMAGE} and a {MASK} that are there, relative to the dataset's root{said}."
        )
    return Pairs(pairs=tuple(pairs[image] for image in sorted(pairs)), remarks=tuple(remarks))


def _pairs_in(files: DatasetFiles, name: str) -> Iterator[FilePair]:
    path = files.path(name)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise _Unusable(f"it has more than {LARGEST_FILE // 1_000_000} MB.")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _Unusable(f"it cannot be read as JSON ({str(error)[:80]}).") from error
    for entry in content if isinstance(content, list) else [content]:
        if not isinstance(entry, dict) or IMAGE not in entry or MASK not in entry:
            raise _Unusable(f"it names no {IMAGE} and {MASK}.")
        images, masks = _texts(entry[IMAGE]), _texts(entry[MASK])
        if len(images) != len(masks):
            raise _Unusable(f"it names {len(images)} images and {len(masks)} masks.")
        for image, mask in zip(images, masks, strict=True):
            yield FilePair(image=_relative(image), mask=_relative(mask))


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise _Unusable(f"{IMAGE} and {MASK} are texts, or lists of texts.")
    return values


def _relative(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))
