"""/setup where a toolkit class is served: its own `setup` runs in the engine, not in the request.

Label Studio gives /setup three seconds, and a class may load its model for a minute. So the web
process answers from the records. Only the first time that it meets a label config it asks the
engine as well, and waits a moment for the version that the class sets.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import BackendError
from ml_backend.service.toolkit_releasing import ToolkitReleasing
from ml_backend.web.dependencies import EngineClient

EXTRA_PARAMS = "extra_params"
"""The key under which the toolkit keeps what is entered for the backend in Label Studio."""

PATH = "/toolkit/setup"
PATIENCE_S = 1.5  # of the engine; then it goes on by itself
_MARGIN_S = 0.5
_ASK_AGAIN_S = 30.0  # after a failure
_REMEMBERED = 256  # projects

log = structlog.get_logger(__name__)


class ToolkitSetups:
    """Keeps what /setup says for the class, and has it set up."""

    def __init__(
        self,
        releasing: ToolkitReleasing,
        engine: EngineClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._releasing = releasing
        self._engine = engine
        self._clock = clock
        # label config that the engine was asked about last, and when it may be asked again
        self._asked: OrderedDict[ProjectKey, tuple[str, float]] = OrderedDict()

    def keep(self, project: ProjectKey, extra_params: Any) -> None:
        """Keep the extra parameters, where there are any, as the toolkit does.

        Raises:
            ToolkitError: they are too long.
            StoreError
        """
        if extra_params:
            is_text = isinstance(extra_params, str)
            text = extra_params if is_text else json.dumps(extra_params, sort_keys=True)
            self._releasing.values.set(project, EXTRA_PARAMS, text)

    async def set_up(self, project: ProjectKey, label_config: str) -> bool:
        """Have the class set up for a label config that is new here; return whether it was."""
        of_config, not_before = self._asked.get(project, ("", 0.0))
        if of_config == label_config and self._clock() < not_before:
            return False
        self._note(project, label_config, math.inf)
        body = {"project": str(project), "label_config": label_config, "budget_s": PATIENCE_S}
        try:
            async with asyncio.timeout(PATIENCE_S + _MARGIN_S):
                answer = await self._engine.ask(
                    PATH,
                    content=orjson.dumps(body),
                    headers={"Content-Type": "application/json"},
                    budget_s=PATIENCE_S,
                )
        except (BackendError, TimeoutError) as error:  # predictions say it again
            reason = error.message if isinstance(error, BackendError) else "no answer in time"
            log.warning("toolkit class not set up", project=str(project), reason=reason)
            self._note(project, label_config, self._clock() + _ASK_AGAIN_S)
            return False
        await answer.close()
        return True

    def _note(self, project: ProjectKey, label_config: str, not_before: float) -> None:
        self._asked[project] = (label_config, not_before)
        self._asked.move_to_end(project)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
