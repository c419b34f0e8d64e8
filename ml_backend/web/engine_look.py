"""What the engine says of itself, for whoever cannot wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ml_backend.service.load import EngineWork
from ml_backend.web.dependencies import EngineClient

ENGINE_WITHIN_S = 1.0
"""So long a look at the engine may take; then it is taken to be away."""
PROBE_WITHIN_S = 0.5
"""The same for whoever has a second for everything, as Kubernetes has for a probe."""


@dataclass(frozen=True, kw_only=True)
class EngineLook:
    """One engine: behind a load balancer, the one that happened to answer."""

    device: str
    work: EngineWork

    def to_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {"device": self.device, "depth": self.work.depth, "slots": self.work.slots}


async def look_at_engine(
    engine: EngineClient, *, timeout_s: float = ENGINE_WITHIN_S
) -> EngineLook | None:
    """Return what an engine says of itself, None when none answers in time."""
    answer = await engine.look("/health", timeout_s=timeout_s)
    if answer is None:
        return None
    try:
        said = msgspec.json.decode(answer, type=_Health)
    except msgspec.DecodeError:
        return None
    return EngineLook(device=said.device, work=EngineWork(depth=said.depth, slots=said.slots))


class _Health(msgspec.Struct):
    device: str
    depth: int
    slots: int
