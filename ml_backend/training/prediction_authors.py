"""Which networks made the prediction that a person was shown."""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog

from ml_backend.domain import ProjectKey
from ml_backend.errors import LabelStudioError
from ml_backend.store.releases import Releases

log = structlog.get_logger(__name__)


class PredictionAuthors:
    """Follows a prediction's id to its version, and the version to the networks of a release."""

    def __init__(
        self,
        project: ProjectKey,
        controls: Collection[str],
        releases: Releases,
        version_of: Callable[[int], str | None] | None,
    ) -> None:
        """Keep the collaborators.

        Args:
            project: whose predictions.
            controls: names of those whose networks are wanted.
            releases: knows the networks of each version.
            version_of: asks Label Studio for a prediction's version; None without credentials.
        """
        self._project = project
        self._controls = frozenset(controls)
        self._releases = releases
        self._version_of = version_of

    def __call__(self, prediction_id: int) -> frozenset[str]:
        """Return the sha256 of the networks' weights; empty when nobody knows.

        Raises:
            StoreError
        """
        if self._version_of is None:
            return frozenset()
        try:
            version = self._version_of(prediction_id)
        except LabelStudioError as error:  # scoring has another way to find out
            log.warning("unknown prediction", prediction=prediction_id, reason=error.message)
            return frozenset()
        release = None if version is None else self._releases.by_version(self._project, version)
        if release is None:
            return frozenset()
        return frozenset(
            component.sha256
            for control, component in release.components.items()
            if control in self._controls
        )
