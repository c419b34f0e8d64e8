"""The images that exported outlines lie in: their sizes, and their files where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from ml_backend.domain import Control, FetchedFile, Fetcher, LabelStudioAccess
from ml_backend.errors import BadRequest
from ml_backend.imaging.locations import is_data_address
from ml_backend.labelstudio.rle_records import MAX_PIXELS
from ml_backend.labelstudio.values import read_value
from ml_backend.service.file_names import safe_name
from ml_backend.service.said_of_tasks import Said
from ml_backend.service.task_prediction import Decoder

_LONGEST_ENDING: Final = 8


@dataclass(frozen=True, kw_only=True)
class ImageFrame:
    """The image that a control's regions lie in."""

    height: int
    width: int
    name: str  # of the image's file, as the task's data has it; "" = it has none
    file: FetchedFile | None  # None = not asked for

    @property
    def ending(self) -> str:
        """Return the ending of the file's name with its dots, such as ".ome.tif"."""
        suffixes = PurePosixPath(self.name).suffixes
        kept = [one for one in suffixes[-2:] if len(one) <= _LONGEST_ENDING]
        return "".join(kept if len(kept) == 2 and kept[0] == ".ome" else kept[-1:])


@dataclass(frozen=True, kw_only=True)
class ExportedImages:
    """Finds the images of tasks."""

    fetcher: Fetcher
    decode: Decoder
    access: LabelStudioAccess
    with_files: bool

    def frame(self, one: Said, controls: Sequence[Control]) -> ImageFrame:
        """Return the image that the regions of `controls`, which share it, lie in.

        Its size stands in every region; an image without regions has to be looked at.

        Raises:
            BadRequest, ImageError
        """
        size = _size_in(one, controls)
        address = "" if one.data is None else read_value(one.data, controls[0].value_key)
        file = None
        if self.with_files or size is None:
            if not address:
                raise BadRequest(
                    "what data the task has is not known; set LABEL_STUDIO_API_KEY, so that it "
                    "can be asked for."
                )
            file = self.fetcher.fetch(address, task_id=one.task_id, access=self.access)
            if size is None:
                options = controls[0].segmentation
                image = self.decode(file, plane=options.plane, channels=options.channels)
                size = image.height, image.width
        return ImageFrame(
            height=size[0],
            width=size[1],
            name=_file_name(address),
            file=file if self.with_files else None,
        )


def _size_in(one: Said, controls: Sequence[Control]) -> tuple[int, int] | None:
    """Return height and width as a region says them, None where none does."""
    names = {control.to_name for control in controls}
    for region in one.result:
        height, width = region.get("original_height"), region.get("original_width")
        if (
            region.get("to_name") in names
            and type(height) is int
            and type(width) is int
            and height > 0
            and width > 0
            and height * width <= MAX_PIXELS
        ):
            return height, width
    return None


def _file_name(address: str) -> str:
    """Return the name of the file behind an address, without what may be secret in it."""
    if not address or is_data_address(address):
        return ""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    named = parse_qs(parts.query).get("d", [])  # Label Studio's local files: ?d=folder/file
    path = named[0] if parts.path.endswith("/local-files/") and named else unquote(parts.path)
    return safe_name(path)
