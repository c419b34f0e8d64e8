"""Notices a network that unlearns to find objects while it is trained, and says why it may be."""

from __future__ import annotations

from dataclasses import dataclass, field

FEWEST = 10  # objects that the base network finds on the hold-out; below, nothing can be said
SHARE = 0.3  # of what it should at least find
LOOKS = 3  # scores in a row: networks sometimes lose objects for a while
NOT_BEFORE = 1 / 3  # of the training


@dataclass(kw_only=True)
class CollapseWatch:
    """Compares each score on the hold-out with what the base network finds there."""

    base_found: int  # objects
    outlined: int  # objects, by people
    _looks: int = field(default=0, init=False)

    def look(self, found: int, done: float) -> str | None:
        """Return why to end the training now, as a sentence; None to go on.

        Args:
            found: objects that the network in training finds on the hold-out.
            done: part of the training that is over, 0..1.
        """
        expected = min(self.base_found, self.outlined)  # a base may find what nobody wants
        is_poor = self.base_found >= FEWEST and found < SHARE * expected
        self._looks = self._looks + 1 if is_poor else 0
        if self._looks < LOOKS or done < NOT_BEFORE:
            return None
        return (
            f"The training was ended early: on the held-out images its network finds {found} "
            f"objects, where the base network finds {self.base_found} and people outlined "
            f"{self.outlined}. Likely reasons: cells that nobody outlined were learned as "
            "background (draw a region with the label that model_roi names around what is "
            "finished), the learning rate is too high, or the outlines do not fit the images."
        )
