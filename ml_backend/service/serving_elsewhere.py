"""Which controls of a project a version can be served for that was not trained for them."""

from __future__ import annotations

from collections.abc import Sequence

from ml_backend.domain import CLASSIFIER, DefaultModels, LabelConfig, ProjectKey
from ml_backend.errors import BadRequest, Conflict
from ml_backend.labelstudio.targets import asked_by
from ml_backend.learning import Origin, Version, origin_of


def origins_for(
    version: Version,
    project: ProjectKey,
    config: LabelConfig,
    controls: Sequence[str] | None,
    models: DefaultModels,
) -> dict[str, Origin]:
    """Return for which controls of a project a version is to be served, and as what.

    It goes with what each control asks for now: where the label config asks for another network
    or other channels later, the control gets those, as with versions trained for it.

    Args:
        version: Of another project, of a dataset or uploaded; or of `project`, for other controls.
        project: Whose controls.
        config: Its label config.
        controls: Their names; None = all that are fed with masks.
        models: What the settings name, for controls that name nothing.

    Raises:
        Conflict: it answers for Choices, so it knows the classes of its own project only; or the
            project has no controls that are fed with masks.
        BadRequest: the project has no such controls.
    """
    if version.component.architecture == CLASSIFIER:
        raise Conflict(
            f"The model {version.name!r} answers for Choices and knows the classes of its own "
            "controls only; train one for the others."
        )
    fed = {control.name: control for control in config.controls}
    if not fed:
        raise Conflict(
            f"The label config of project {project.project_id} has no control that cell masks can "
            f"feed, so {version.name!r} cannot be served there."
        )
    unknown = [name for name in controls or () if name not in fed]
    if unknown or controls == []:
        raise BadRequest(
            f"Project {project.project_id} has no control {', '.join(unknown) or '(none named)'} "
            f"that is fed with masks; it has {', '.join(fed)}."
        )
    return {
        name: origin_of(version)
        if version.project == project and name in version.controls
        else Origin(
            version_name=version.name,
            base_requested=asked_by(fed[name], models),
            version_project=version.project,
        )
        for name in (fed if controls is None else dict.fromkeys(controls))
    }
