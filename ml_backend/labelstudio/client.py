"""Everything we ask of Label Studio, over label-studio-sdk.

Reads here have no side effects. `GET /api/ml` is not among them on purpose: Label Studio calls
the backend's /health and /setup for it and saves the backend's row again, which can undo a change
of its title that happens meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from ml_backend.domain import Prediction
from ml_backend.errors import LabelStudioError
from ml_backend.labelstudio.project_calls import ProjectCalls, chunks_of
from ml_backend.labelstudio.rows import (
    BasicAuth,
    ConnectedBackend,
    Webhook,
    all_events,
    auth_fields,
    parse_backend,
    parse_webhook,
)

log = structlog.get_logger(__name__)

PREDICTIONS_PER_REQUEST = 100  # a larger one keeps annotators waiting for seconds


class LabelStudioClient(ProjectCalls):
    """One Label Studio, as the owner of `api_key` (legacy or personal access token) sees it.

    Every method raises LabelStudioError with a sentence that says what to do.
    """

    # Predictions

    def import_predictions(self, project_id: int, items: Sequence[tuple[int, Prediction]]) -> int:
        """Store (task id, prediction) pairs and return how many Label Studio accepted.

        Rows are added, never replaced: ask `tasks_with_prediction` first. Label Studio drops
        invalid ones without a word; fewer accepted than sent is logged. Those with a cluster go
        one by one, since it is dropped from all others.
        """
        created = 0
        for task_id, item in items:
            if item.cluster is not None:
                row = {"task": task_id, "cluster": item.cluster, **item.to_json()}
                self.ask("POST", "api/predictions/", json=row)
                created += 1
        plain = [(task_id, item) for task_id, item in items if item.cluster is None]
        for chunk in chunks_of(plain, PREDICTIONS_PER_REQUEST):
            rows = [{"task": task_id, **item.to_json()} for task_id, item in chunk]
            answer = self.ask("POST", f"api/projects/{project_id}/import/predictions", json=rows)
            created += int(answer["created"])
        if created < len(items):
            log.warning(
                "Label Studio dropped predictions as invalid; its log says why",
                project=project_id,
                sent=len(items),
                stored=created,
            )
        return created

    # ML backends

    def backends(self, project_id: int) -> list[ConnectedBackend]:
        """Return the backends of a project; the first one makes all predictions."""
        answer = self.ask(
            "GET",
            f"api/projects/{project_id}/model-versions",
            params={"extended": "true", "include_live_models": "true"},
        )
        return [parse_backend(item) for item in answer["live"] or []]

    def create_backend(
        self, project_id: int, *, url: str, title: str, auth: BasicAuth | None
    ) -> ConnectedBackend:
        """Register a backend; Label Studio calls its /health and /setup meanwhile."""
        row = {"project": project_id, "url": url, "title": title, **auth_fields(auth)}
        return parse_backend(self.ask("POST", "api/ml/", json=row))

    def update_backend(
        self,
        backend_id: int,
        *,
        project_id: int,
        url: str,
        title: str,
        auth: BasicAuth | None,
    ) -> ConnectedBackend:
        """Change a backend; its whole address is needed, Label Studio fails without it."""
        row = {"project": project_id, "url": url, "title": title, **auth_fields(auth)}
        return parse_backend(self.ask("PATCH", f"api/ml/{backend_id}", json=row))

    # Webhooks

    def webhooks(self, project_id: int | None = None) -> list[Webhook]:
        """Return the webhooks of a project, or of the whole organization."""
        params = {} if project_id is None else {"project": project_id}
        return [parse_webhook(item) for item in self.ask("GET", "api/webhooks/", params=params)]

    def create_webhook(self, project_id: int, url: str, headers: Mapping[str, str]) -> Webhook:
        """Send all events of a project to `url`, with these headers."""
        row = {"project": project_id, "url": url, **all_events(headers)}
        return parse_webhook(self.ask("POST", "api/webhooks/", json=row))

    def update_webhook(self, webhook_id: int, headers: Mapping[str, str]) -> Webhook:
        """Set a webhook's headers, switch it on and let it send all events."""
        # a PATCH without the actions would clear them
        return parse_webhook(
            self.ask("PATCH", f"api/webhooks/{webhook_id}/", json=all_events(headers))
        )

    def delete_webhook(self, webhook_id: int) -> None:
        """Remove a webhook."""
        self.ask("DELETE", f"api/webhooks/{webhook_id}/")

    # Guards: requests that are refused in any case; what counts is how

    def refuses_backends_at(self, project_id: int, host: str) -> bool:
        """Return whether Label Studio's ML_BLOCK_LOCAL_IP keeps backends on `host` out.

        Nobody answers on the discard port, so nothing is ever registered.
        """
        row = {"project": project_id, "url": f"http://{host}:9", "title": "probe"}
        return self._is_forbidden("api/ml/", row)

    def refuses_webhooks_to(self, project_id: int, url: str) -> bool:
        """Return whether Label Studio's SSRF_PROTECTION_ENABLED keeps webhooks to `url` out.

        There is no such action, so nothing is ever made.
        """
        row = {"project": project_id, "url": url, "actions": ["NO_SUCH_ACTION"]}
        return self._is_forbidden("api/webhooks/", row)

    def _is_forbidden(self, path: str, row: Mapping[str, Any]) -> bool:
        try:
            self.ask("POST", path, json=row)
        except LabelStudioError as error:
            if error.status in (400, 403):
                return error.status == 403
            raise
        return False
