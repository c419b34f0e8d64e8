"""Tiny pairs of label images, one per thing that a segmentation gets right or wrong.

A digit or letter is an instance, a dot is background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two label images and what matching them at an IoU of 0.5 finds."""

    name: str
    truth: str
    predicted: str
    pairs: tuple[tuple[int, int], ...]  # (ground truth, predicted)
    iou: tuple[float, ...]  # of the pairs
    missed: tuple[int, ...] = ()
    spurious: tuple[int, ...] = ()

    @property
    def images(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Return (ground truth, predicted) as (Y, X) label images."""
        return parse(self.truth), parse(self.predicted)


def parse(picture: str) -> npt.NDArray[np.int32]:
    """Return the label image of a picture of digits and dots."""
    rows = picture.split()
    return np.array([[0 if sign == "." else int(sign) for sign in row] for row in rows], np.int32)


CASES = (
    Case(
        name="exact",
        truth="11.22 11.22 .....",
        predicted="11.22 11.22 .....",
        pairs=((1, 1), (2, 2)),
        iou=(1.0, 1.0),
    ),
    Case(
        name="exact, other numbers",
        truth="11.22 11.22 .....",
        predicted="99.44 99.44 .....",
        pairs=((1, 9), (2, 4)),
        iou=(1.0, 1.0),
    ),
    Case(
        name="missed",
        truth="11.22 11.22 .....",
        predicted="11... 11... .....",
        pairs=((1, 1),),
        iou=(1.0,),
        missed=(2,),
    ),
    Case(
        name="spurious",
        truth="11... 11... .....",
        predicted="11.22 11.22 .....",
        pairs=((1, 1),),
        iou=(1.0,),
        spurious=(2,),
    ),
    Case(
        name="split in halves",
        truth="1111. 1111. .....",
        predicted="1122. 1122. .....",
        pairs=((1, 1),),
        iou=(0.5,),
        spurious=(2,),
    ),
    Case(
        name="split unevenly",
        truth="1111. 1111. .....",
        predicted="1112. 1112. .....",
        pairs=((1, 1),),
        iou=(0.75,),
        spurious=(2,),
    ),
    Case(
        name="merged",
        truth="1122. 1122. .....",
        predicted="1111. 1111. .....",
        pairs=((1, 1),),
        iou=(0.5,),
        missed=(2,),
    ),
    Case(
        name="merged three",
        truth="11223 11223 ....3",
        predicted="11111 11111 ....1",
        pairs=(),
        iou=(),
        missed=(1, 2, 3),
        spurious=(1,),
    ),
    Case(
        name="shifted by one",
        truth="1111. 1111. 1111. 1111.",
        predicted=".1111 .1111 .1111 .1111",
        pairs=((1, 1),),
        iou=(0.6,),
    ),
    Case(
        name="shifted by two",
        truth="1111.. 1111.. 1111..",
        predicted="..1111 ..1111 ..1111",
        pairs=(),
        iou=(),
        missed=(1,),
        spurious=(1,),
    ),
    Case(
        # 1 could take either half; taking the wrong one would leave 2 with nothing.
        name="two compete for two",
        truth="1122. ..... .....",
        predicted="1.22. ..... .....",
        pairs=((1, 1), (2, 2)),
        iou=(0.5, 1.0),
    ),
    Case(name="empty, empty", truth="... ...", predicted="... ...", pairs=(), iou=()),
    Case(
        name="empty, found", truth="... ...", predicted="11. ...", pairs=(), iou=(), spurious=(1,)
    ),
    Case(name="all missed", truth="11. ..2", predicted="... ...", pairs=(), iou=(), missed=(1, 2)),
    Case(name="no background", truth="11 11", predicted="11 11", pairs=((1, 1),), iou=(1.0,)),
)
