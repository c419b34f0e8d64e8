"""From what a caller names as a dataset to where it lies, checked as far as can be done at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ml_backend.datasets import DatasetSource
from ml_backend.errors import BadRequest, NotFound
from ml_backend.store.datasets import Datasets

LONGEST_ARTIFACT: Final = 2000  # characters
LONGEST_PATTERN: Final = 500
_SHOWN: Final = 20  # names in a sentence
_SHOWN_CHARS: Final = 200  # of what was given

_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, kw_only=True)
class DatasetWish:
    """A dataset as a caller names it; see `DatasetSource` for folders and patterns."""

    artifact: str  # a folder, the address of an archive, or the name of a known dataset
    train_images: str | None = None
    train_annotations: str | None = None
    test_images: str | None = None
    test_annotations: str | None = None
    metadata_dir: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Return the folders and patterns that are given."""
        values = {name: getattr(self, name) for name in _INSIDE}
        return {name: value for name, value in values.items() if value is not None}


_INSIDE: Final = tuple(one.name for one in fields(DatasetWish) if one.name != "artifact")


class AllowedPaths:
    """The folders on this machine that callers may name things in."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)

    def find(self, path: str, *, what: str) -> Path:
        """Return a path that may be read, links resolved.

        Args:
            path: Absolute, as a caller gives it.
            what: It is, for messages, such as "dataset".

        Raises:
            BadRequest: it lies outside of the allowed folders, or is not there.
        """
        if not self._roots:
            raise BadRequest(
                f"No path may be named as a {what} here; set DATA_ROOTS to the folders that hold "
                "them, for the web process, the engine and the trainer."
            )
        try:
            real = Path(path).resolve()
            root = next((one for one in self._roots if real.is_relative_to(one.resolve())), None)
            # the trainer may have what is not mounted here; then it says what is missing
            is_missing = root is not None and root.exists() and not real.exists()
        except (OSError, RuntimeError, ValueError):  # RuntimeError: links that go in a circle
            root, is_missing = None, False
        if root is None:
            listed = ", ".join(str(one) for one in self._roots)
            raise BadRequest(
                f"{path[:_SHOWN_CHARS]!r} lies outside of the folders that may be read here "
                f"({listed}); move it there or add its folder to DATA_ROOTS."
            )
        if is_missing:
            raise BadRequest(
                f"There is no {what} at {path[:_SHOWN_CHARS]!r}; check how it is written."
            )
        return real


class DatasetSources:
    """Finds out where the datasets lie that callers name."""

    def __init__(self, datasets: Datasets, paths: AllowedPaths) -> None:
        self._datasets = datasets
        self._paths = paths

    def find(self, wish: DatasetWish) -> DatasetSource:
        """Return where a dataset lies.

        Raises:
            BadRequest: its folder must not be read, or a folder or pattern in it makes no sense.
            NotFound: there is no dataset of that name.
            StoreError
        """
        _check(wish)
        artifact = wish.artifact
        if "://" in artifact:
            return DatasetSource(root=_checked_address(artifact), **wish.named)
        if Path(artifact).is_absolute():
            root = str(self._paths.find(artifact, what="dataset"))
            return DatasetSource(root=root, **wish.named)
        known = self._datasets.get(artifact)
        if known is None:
            raise self._unknown(artifact)
        return replace(known.source, **wish.named)

    def _unknown(self, artifact: str) -> NotFound:
        known = [dataset.name for dataset in self._datasets.all(limit=_SHOWN + 1)]
        more = ", ..." if len(known) > _SHOWN else ""
        listed = ", ".join(known[:_SHOWN]) + more if known else "none yet"
        return NotFound(
            f"There is no dataset {artifact[:_SHOWN_CHARS]!r} (known: {listed}); give the absolute "
            "path of a folder, the address of a zip or tar archive, or a known name."
        )


def _check(wish: DatasetWish) -> None:
    for name, value in (("artifact", wish.artifact), *wish.named.items()):
        longest = LONGEST_ARTIFACT if name == "artifact" else LONGEST_PATTERN
        if not value.strip() or len(value) > longest or not value.isprintable():
            raise BadRequest(f"{name} must be a text of 1 to {longest} printable characters.")
    for name, value in wish.named.items():
        if value.startswith("/") or ".." in value.split("/"):
            raise BadRequest(
                f"{name} is {value!r}, which leads out of the dataset; write it relative to the "
                "dataset's root."
            )
        if value.count("*") > (0 if name == "metadata_dir" else 1):
            raise BadRequest(
                f"{name} is {value!r}; it must be a folder"
                + ("." if name == "metadata_dir" else " or a pattern with one *.")
            )
    _check_pair("train", wish.train_images, wish.train_annotations)
    _check_pair("test", wish.test_images, wish.test_annotations)
    if wish.metadata_dir is not None and wish.train_images is not None:
        raise BadRequest(
            "metadata_dir says which masks belong to which image, and so do train_images; give "
            "one of them."
        )


def _check_pair(which: str, images: str | None, masks: str | None) -> None:
    if masks is not None and images is None:
        raise BadRequest(
            f"{which}_annotations needs {which}_images; name both, or neither where masks lie "
            "beside their images."
        )
    if "*" in (images or "") and "*" not in (masks or ""):
        raise BadRequest(
            f"{which}_images is a pattern, so {which}_annotations must be one as well; their * "
            "stands for the same text."
        )


def _checked_address(artifact: str) -> str:
    try:
        parts = urlsplit(artifact)
        is_right = parts.scheme.lower() in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port, or of brackets
        is_right = False
    if not is_right:
        raise BadRequest(
            f"{artifact[:_SHOWN_CHARS]!r} is no address of an archive; write it like "
            "https://host/nuclei.zip."
        )
    if parts.username is not None or parts.password is not None:
        raise BadRequest(
            "An address with a user name or password would be kept and shown; leave them away and "
            "let this machine fetch the archive without."
        )
    return artifact
