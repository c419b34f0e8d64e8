"""The catalogue of all models: built in, Cellpose's, trained on projects and datasets, uploaded.

The command line and the API read it from the records. Nothing here imports a network library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_backend.domain import Component, ProjectKey
from ml_backend.errors import BadRequest, Conflict, ModelNotFound, NotFound
from ml_backend.learning import Version
from ml_backend.model_files.architectures import RESIDUAL_UNET
from ml_backend.model_files.hashes import file_sha256
from ml_backend.model_files.known import CELLPOSE_LICENCE, CELLPOSE_MODELS, built_in_networks
from ml_backend.service.model_lineage import Lineages
from ml_backend.service.model_names import ModelNames
from ml_backend.service.models_listed import Model, ModelKind, ServedFor
from ml_backend.service.project_names import find_project
from ml_backend.store.components import Components
from ml_backend.store.datasets import Datasets
from ml_backend.store.projects import Projects
from ml_backend.store.releases import DEFAULT_PROJECT, Releases
from ml_backend.store.versions import Versions

_MOST_DATASETS = 100_000


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file that can be handed out."""

    path: Path
    sha256: str
    file_name: str  # for who gets it


@dataclass(frozen=True, kw_only=True)
class ModelDesk:
    """Lists models and finds one."""

    projects: Projects
    versions: Versions
    releases: Releases
    components: Components
    datasets: Datasets
    names: ModelNames
    cellpose_dir: Path  # where Cellpose's weights are looked for

    def list(
        self,
        *,
        kind: ModelKind | None = None,
        project: str | None = None,
        dataset: str | None = None,
    ) -> Sequence[Model]:
        """Return models: the built-in ones, then the others, newest first.

        Args:
            kind: None = of any.
            project: As `find_project` takes it: only what was trained on it. None = of all.
            dataset: Name of one: only what was trained on it. None = of all.

        Raises:
            NotFound, BadRequest: there is no such project or dataset, or there are several.
            StoreError
        """
        keys = []
        if project is not None:
            keys.append(find_project(self.projects, project).key)
        if dataset is not None:
            keys.append(self._dataset(dataset))
        trained = self._trained(self.versions.of_all_projects(), only=keys)
        found = [*(() if keys else self._known()), *trained]
        return [model for model in found if kind in (None, model.kind)]

    def get(self, name: str, *, project: str | None = None) -> Model:
        """Return the model of a name.

        Args:
            name: As people write it where a model is named: also the id of a session.
            project: Whose, where several have one so named: as `find_project` takes it, a
                dataset's name, or "uploads".

        Raises:
            NotFound: there is none.
            BadRequest: there are several; the sentence has names that tell them apart.
            StoreError
        """
        if project is None:
            known = next((model for model in self._known() if model.name == name), None)
            if known is not None:
                return known
        version = self.version(name, project=project)
        return next(
            model
            for model in self._trained(self.versions.of_all_projects(), only=[version.project])
            if model.name == version.name
        )

    def version(self, name: str, *, project: str | None = None) -> Version:
        """Return the trained or uploaded model of a name; the arguments are those of `get`.

        Raises:
            NotFound: there is none.
            BadRequest: there are several; the sentence has names that tell them apart.
            Conflict: it is built in, so nothing can be done with it.
            StoreError
        """
        if project is None and any(model.name == name for model in self._known()):
            raise Conflict(
                f"The model {name!r} is built in: every project can name it as model_name in its "
                "label config, and it cannot be changed."
            )
        if project is not None:
            return self._of_project(name, project)
        found = self.names.matches(name)
        if len(found) > 1:
            choices = ", ".join(repr(self.names.project_name(one.project)) for one in found)
            raise BadRequest(
                f"Several models are called {name[:200]!r}; name one of them as the project: "
                f"{choices}."
            )
        if found:
            return found[0]
        try:
            made = self.names.find(name)
        except ModelNotFound as error:  # a session without a model
            raise NotFound(error.message) from error
        if made is None:
            raise NotFound(f"There is no model {name[:200]!r}; `ml-backend models list` shows all.")
        return made

    def version_for(self, name: str, *, owner: str | None, target: ProjectKey | None) -> Version:
        """Return the trained or uploaded model of a name, for a project to serve.

        Where several have one so named, the project's own is meant.

        Args:
            name: Of the model.
            owner: Whose it is, as `get` takes it; None = nobody said.
            target: The project that shall serve it; None = its own.

        Raises:
            NotFound, BadRequest, Conflict, StoreError: as `version`.
        """
        own = None
        if owner is None and target is not None and "\0" not in name:
            own = self.versions.get(target, name)
        return own or self.version(name, project=owner)

    def weights(self, name: str, *, project: str | None = None) -> Weights:
        """Return the file of a model's weights; hashing one of Cellpose's takes seconds.

        Raises:
            NotFound: there is no such model, or its file is not on this machine.
            BadRequest: there are several.
            StoreError
        """
        model = self.get(name, project=project)
        if model.path is None or not model.path.is_file():
            raise NotFound(
                f"The weights of {model.name!r} are not on the machine that answers"
                + (
                    f"; `ml-backend models fetch {model.name}` fetches them."
                    if model.kind is ModelKind.BUILT_IN
                    else "; look for its folder where it was trained."
                )
            )
        sha256 = model.sha256 or file_sha256(model.path)
        ending = model.path.suffix or ".pt"  # Cellpose's have none, and are torch's
        return Weights(path=model.path, sha256=sha256, file_name=f"{model.name}{ending}")

    def _of_project(self, name: str, project: str) -> Version:
        """Return the version of that name in that project; of whichever there is, if there is one.

        Raises:
            NotFound, BadRequest
        """
        found = [
            one
            for one in self.versions.named(name if "\0" not in name else "")
            if self.names.is_of(one.project, project)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(repr(str(one.project)) for one in found)
            raise BadRequest(
                f"Several projects called {project!r} have a model {name[:200]!r}; name one of "
                f"them: {choices}."
            )
        if project != "uploads" and self.datasets.get(project) is None:
            find_project(self.projects, project)  # says which there are
        raise NotFound(f"There is no model {name[:200]!r} of {project[:200]!r}; list its models.")

    def _dataset(self, name: str) -> ProjectKey:
        found = self.datasets.get(name) if "\0" not in name else None
        if found is None:
            known = ", ".join(one.name for one in self.datasets.all(limit=20)) or "none yet"
            raise NotFound(f"There is no dataset {name[:200]!r}; there are: {known}.")
        return found.key

    def _known(self) -> Sequence[Model]:
        served = self._served()
        shipped = [
            Component(
                name=network.name,
                architecture=RESIDUAL_UNET,
                sha256=network.sha256,
                path=str(network.path),
                licence=network.licence,
            )
            for network in built_in_networks()
        ]
        published = [
            self._looked_at(name)
            or Component(
                name=name,
                architecture=architecture,
                sha256="",
                path=str(self.cellpose_dir / name),
                licence=CELLPOSE_LICENCE,
            )
            for name, architecture in CELLPOSE_MODELS.items()
        ]
        return [
            Model.known(component, served.get((component.path, None), ()))
            for component in (*shipped, *published)
        ]

    def _looked_at(self, name: str) -> Component | None:
        """Return what an engine has found for one of Cellpose's names."""
        component = self.components.resolved(name)
        here = str(self.cellpose_dir / name)
        return component if component is not None and component.path == here else None

    def _trained(
        self, versions: Iterable[Version], *, only: Sequence[ProjectKey]
    ) -> Sequence[Model]:
        listed = list(versions)
        served, lineages = self._served(), Lineages(listed)
        datasets = {one.key: one.name for one in self.datasets.all(limit=_MOST_DATASETS)}
        models = []
        for version in listed:
            if only and version.project not in only:
                continue
            lineage = lineages.of(version)
            component = version.component
            models.append(
                Model.of_version(
                    version,
                    lineage=lineage,
                    dataset=datasets.get(version.project),
                    serves=(
                        *served.get((version.project, version.name), ()),
                        *served.get((component.path, None), ()),
                    ),
                    namesake=lineages.has_namesake(version),
                )
            )
        return models

    def _served(self) -> dict[tuple[ProjectKey | str, str | None], tuple[ServedFor, ...]]:
        """Return what each model serves: by project and name of a version, or by path of a base."""
        serving = self.versions.served_everywhere()
        found: dict[tuple[ProjectKey | str, str | None], tuple[ServedFor, ...]] = {}
        for project, release in self.releases.all_active().items():
            if project == DEFAULT_PROJECT:
                continue
            for control, component in sorted(release.components.items()):
                override = serving.get(project, {}).get(control)
                key: tuple[ProjectKey | str, str | None] = (component.path, None)
                if override is not None and override.component.path == component.path:
                    key = (override.version_project or project, override.version_name)
                found[key] = (*found.get(key, ()), ServedFor(project=project, control=control))
        return found
