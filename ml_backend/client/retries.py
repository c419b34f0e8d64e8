"""How often and when the client asks again: a few times, and only where asking twice is safe."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

PASSING_STATUSES = frozenset({429, 502, 503, 504})
"""Answers that may be another in a moment."""

IN_PROGRESS = "request.in_progress"
"""The code of a start that the server is still working on: a retry came too early."""


@dataclass(frozen=True, kw_only=True)
class Retries:
    """When a request that failed is sent again."""

    times: int = 3
    first_s: float = 0.25  # before the first; each is twice the one before it
    longest_s: float = 30.0  # even where the server asks for more

    def delays(self) -> Iterator[float]:
        """Yield the seconds to wait before each retry, a little different for every client."""
        for number in range(self.times):
            spread = random.uniform(0.8, 1.2)  # noqa: S311  # it keeps no secret
            yield min(self.longest_s, spread * self.first_s * 2**number)

    def wait_s(self, delay_s: float, asked_s: float | None) -> float:
        """Return how long to wait, given what `delays` yields and what the server asked for."""
        return min(self.longest_s, max(delay_s, asked_s or 0.0))


def retry_after_s(header: str | None, *, now: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, None without a readable one.

    Args:
        header: Seconds, or a date.
        now: Seconds since the epoch; None = now.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now is None else now))
