"""Starts trainings as people and programs ask for them: of projects, of datasets, and anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ml_backend.callers import Caller
from ml_backend.datasets import DATASET_CONTROLS
from ml_backend.domain import CLASSIFIER
from ml_backend.errors import BadRequest, Conflict, ModelError
from ml_backend.learning import ENDED, Session, SessionState, TrainingParameters, Trigger
from ml_backend.model_files.architectures import RESIDUAL_UNET
from ml_backend.model_files.known import AUTO, CELLPOSE_MODELS, model_names
from ml_backend.service.dataset_sources import AllowedPaths, DatasetSources, DatasetWish
from ml_backend.service.model_names import ModelNames
from ml_backend.service.planning import Planner, Wishes, check_recipe
from ml_backend.service.project_names import find_project
from ml_backend.service.toolkit_fits import ToolkitPlanner
from ml_backend.service.training_parameters import read_parameters
from ml_backend.store.components import Components
from ml_backend.store.datasets import Datasets
from ml_backend.store.projects import Projects
from ml_backend.store.sessions import Sessions

LONGEST_LABEL: Final = 100  # characters
LONGEST_MODEL: Final = 1000


@dataclass(frozen=True, kw_only=True)
class StarterRecords:
    """The records that starts read and write."""

    projects: Projects
    datasets: Datasets
    sessions: Sessions
    components: Components
    models: ModelNames


class SessionStarter:
    """Queues sessions."""

    def __init__(
        self,
        records: StarterRecords,
        planner: Planner | ToolkitPlanner,
        paths: AllowedPaths,
        *,
        default_model: str,
        usual: TrainingParameters,
    ) -> None:
        """Keep the collaborators.

        Args:
            records: What is known.
            planner: Requests the sessions of projects.
            paths: What datasets and models may lie in.
            default_model: What MODEL names.
            usual: How a dataset is trained when nobody says otherwise.
        """
        self._records = records
        self._planner = planner
        self._paths = paths
        self._sources = DatasetSources(records.datasets, paths)
        self._default_model = default_model
        self._usual = usual

    def start_project(
        self,
        project: str,
        *,
        by: Caller,
        parameters: dict[str, Any] | None = None,
        label: str | None = None,
    ) -> list[Session]:
        """Queue a session for each network of a project, whatever its policy says.

        One that is queued already is returned instead of a second, unless it is to be trained
        otherwise.

        Args:
            project: As `find_project` takes it.
            by: Who asks.
            parameters: As `read_parameters` takes them; they override the label config's.
            label: A word of the caller's own.

        Raises:
            NotFound, BadRequest: there is no such project, there are several, or a parameter is
                not allowed.
            Conflict: a session waits that would train otherwise.
            ConfigError: its label config has nothing to train.
            StoreError
        """
        fields = read_parameters(parameters or {}, of_project=True)
        label = _checked_label(label)
        wishes = Wishes(parameters=fields, label=label) if fields or label else None
        key = find_project(self._records.projects, project).key
        return self._planner.request(key, Trigger.PERSON, owner=by.name, wishes=wishes)

    def start_dataset(
        self,
        wish: DatasetWish,
        *,
        by: Caller,
        parameters: dict[str, Any] | None = None,
        label: str | None = None,
        model: str | None = None,
    ) -> Session:
        """Queue a session that trains a network on a dataset.

        Args:
            wish: The dataset.
            by: Who asks.
            parameters: As `read_parameters` takes them.
            label: A word of the caller's own.
            model: To start from: auto, a built-in or trained model, the id of a session that made
                one, or the path of a checkpoint; None = what MODEL names.

        Raises:
            NotFound, BadRequest: there is no such dataset, or what is wanted is not allowed.
            ModelError: there is no such model.
            StoreError
        """
        fields = read_parameters(parameters or {}, of_project=False)
        label = _checked_label(label)
        trained_as = replace(self._usual, **fields)
        base, architecture = self._base(model)
        if architecture is not None:
            check_recipe(architecture, trained_as)
        dataset = self._records.datasets.register(self._sources.find(wish))
        return self._records.sessions.request(
            dataset.key,
            controls=DATASET_CONTROLS,
            trigger=Trigger.PERSON,
            parameters=trained_as,
            owner=by.name,
            dataset=dataset.name,
            label=label,
            base=base,
        )

    def restart(self, session: Session, *, by: Caller, n_epochs: int | None = None) -> Session:
        """Queue a new session that goes on from what an ended one has learned.

        Args:
            session: The one that has ended.
            by: Who asks.
            n_epochs: None = as many as it was given.

        Raises:
            BadRequest: so many epochs are not allowed.
            Conflict: it has not ended, has learned nothing yet, or another one waits already.
            StoreError
        """
        fields = read_parameters({"n_epochs": n_epochs}, of_project=session.dataset is None)
        if session.state not in ENDED:
            raise Conflict(
                f"Session {session.id} is {session.state}; stop it or wait for its end, then "
                "restart it."
            )
        if session.started_at is None:
            raise Conflict(
                f"Session {session.id} never ran, so there is nothing to go on from; start a new "
                "one."
            )
        if session.state is SessionState.COMPLETED and session.version is None:
            raise Conflict(
                f"Session {session.id} made no model, so there is nothing to go on from; start a "
                "new one."
            )
        parameters = replace(session.parameters, **fields)
        begun = self._records.sessions.request(
            session.project,
            controls=session.controls,
            trigger=Trigger.PERSON,
            parameters=parameters,
            owner=by.name,
            dataset=session.dataset,
            label=session.label,
            base=session.base,
            restarted_from=session.id,
        )
        if begun.restarted_from != session.id or begun.parameters != parameters:
            raise Conflict(
                f"Session {begun.id} of the same controls waits already; stop that one first."
            )
        return begun

    def _base(self, model: str | None) -> tuple[str | None, str | None]:
        """Return the name that the trainer finds the model by, and its architecture if known."""
        if model is None or model == AUTO:
            known = self._records.components.resolved(model or self._default_model)
            return model, None if known is None else known.architecture
        if not model.strip() or len(model) > LONGEST_MODEL or not model.isprintable():
            raise BadRequest(f"model must be a text of 1 to {LONGEST_MODEL} printable characters.")
        if model in model_names():
            return model, CELLPOSE_MODELS.get(model, RESIDUAL_UNET)
        names = self._records.models
        version = names.usable(model)
        if version is not None:
            if version.component.architecture == CLASSIFIER:
                raise ModelError(
                    f"The model {version.name!r} answers for Choices and finds no masks; name a "
                    "network."
                )
            is_doubtful = len(names.matches(version.name)) > 1
            name = names.full_name(version) if is_doubtful else version.name
            return name, version.component.architecture
        if Path(model).is_absolute():
            return str(self._paths.find(model, what="checkpoint")), None
        raise names.unknown(model)


def _checked_label(label: str | None) -> str | None:
    if label is None or not label.strip():
        return None
    if len(label) > LONGEST_LABEL or not label.isprintable():
        raise BadRequest(f"label must be at most {LONGEST_LABEL} printable characters.")
    return label.strip()
