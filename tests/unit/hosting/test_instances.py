"""An instance lives as long as nothing that it was made from has changed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ml_backend.domain import ProjectKey
from ml_backend.errors import ImageFetchError, ToolkitError
from ml_backend.hosting.instances import FAILED_FOR_S, Instances
from ml_backend.hosting.loading import ToolkitClass
from ml_backend.hosting.ports import current_project
from tests.fakes import ManualClock
from tests.unit.hosting.conftest import CONFIG, PROJECT, FakeValues

PATIENCE_S = 20.0


class Model:
    """Counts how often it was made; a test chooses what `setup` does."""

    made = 0
    failure: BaseException | None = None
    gate = threading.Event()

    def __init__(self, project_id: str, label_config: str) -> None:
        type(self).made += 1
        self.number = type(self).made
        self.project_id = project_id
        self.label_config = label_config
        assert self.gate.wait(PATIENCE_S)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def model() -> type[Model]:
    """A class of this test's own."""
    gate = threading.Event()
    gate.set()
    return type("Model", (Model,), {"made": 0, "failure": None, "gate": gate})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def instances(model: type[Model], values: FakeValues, clock: ManualClock) -> Instances:
    toolkit_class = ToolkitClass(
        name="Model",
        type=model,
        path=Path(__file__).resolve(),
        sha256="0" * 64,
        train_events=(),
    )
    return Instances(toolkit_class, values, most=2, clock=clock)


def project(number: int) -> ProjectKey:
    return ProjectKey(origin="http://ls.example", project_id=number, created_at=1)


def number_of(instances: Instances, key: ProjectKey = PROJECT, config: str = CONFIG) -> int:
    """Return which instance answers."""
    with instances.use(key, config) as instance:
        return int(instance.number)


def test_an_instance_is_used_again(instances: Instances) -> None:
    assert [number_of(instances) for _ in range(3)] == [1, 1, 1]


def test_it_is_made_for_its_project(instances: Instances) -> None:
    with instances.use(PROJECT, CONFIG) as instance:
        assert (instance.project_id, instance.label_config) == ("7", CONFIG)
        assert current_project.get() == PROJECT
    assert current_project.get() != PROJECT


def test_another_label_config_makes_another(instances: Instances) -> None:
    assert [number_of(instances), number_of(instances, config="<View/>")] == [1, 2]


def test_values_that_another_process_has_set_make_another(
    instances: Instances, values: FakeValues
) -> None:
    assert number_of(instances) == 1
    values.set(PROJECT, "mine", "x")
    assert number_of(instances) == 1
    values.revision += 1
    assert number_of(instances) == 2


def test_the_one_not_used_for_longest_is_let_go_of(instances: Instances) -> None:
    first = number_of(instances, project(1))
    number_of(instances, project(2))
    number_of(instances, project(1))
    number_of(instances, project(3))  # there is room for two
    assert number_of(instances, project(1)) == first
    assert number_of(instances, project(2)) == 4


def test_a_failing_setup_says_where_and_is_not_tried_at_once_again(
    instances: Instances, model: type[Model], clock: ManualClock
) -> None:
    model.failure = KeyError("weights")
    for _ in range(3):
        with pytest.raises(ToolkitError, match=r"setup\(\) of Model failed \(KeyError: 'weights'"):
            number_of(instances)
    assert model.made == 1
    model.failure = None
    clock.forward(FAILED_FOR_S + 1)
    assert number_of(instances) == 2


def test_a_failure_of_one_label_config_is_not_that_of_another(
    instances: Instances, model: type[Model]
) -> None:
    model.failure = SystemExit(1)
    with pytest.raises(ToolkitError, match="SystemExit"):
        number_of(instances)
    model.failure = None
    assert number_of(instances, config="<View/>") == 2


def test_our_own_errors_stay_what_they_are(instances: Instances, model: type[Model]) -> None:
    model.failure = ImageFetchError("a.png is gone.")
    with pytest.raises(ImageFetchError):
        number_of(instances)


def test_preparing_waits_no_longer_than_it_may_and_goes_on(
    instances: Instances, model: type[Model]
) -> None:
    model.gate.clear()
    assert not instances.prepare(PROJECT, CONFIG, timeout_s=0.05)
    assert not instances.prepare(PROJECT, CONFIG, timeout_s=0.0)  # the same making
    model.gate.set()
    assert instances.prepare(PROJECT, CONFIG, timeout_s=PATIENCE_S)
    assert number_of(instances) == model.made == 1


def test_preparing_tells_of_a_failure(instances: Instances, model: type[Model]) -> None:
    model.failure = RuntimeError("no memory")
    with pytest.raises(ToolkitError, match="no memory"):
        instances.prepare(PROJECT, CONFIG, timeout_s=PATIENCE_S)


def test_an_instance_in_use_is_prepared(instances: Instances) -> None:
    with instances.use(PROJECT, CONFIG):
        assert instances.prepare(PROJECT, CONFIG, timeout_s=0.0)


def test_two_threads_never_use_an_instance_at_once(instances: Instances) -> None:
    busy: list[Any] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with instances.use(PROJECT, CONFIG) as instance:
                busy.append(instance)
                most = max(most, len(busy))
                time.sleep(0.0005)
                busy.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert most == 1
    assert number_of(instances) == 1
