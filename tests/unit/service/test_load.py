"""How busy an installation is, as one number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.service.load import EngineWork, load_of
from ml_backend.store.census import Work

COUNTS = st.integers(0, 50)


@pytest.mark.parametrize(
    ("queued", "running", "trainers", "engine", "load"),
    [
        (0, 0, 1, (0, 8), 0.0),
        (0, 1, 1, (0, 8), 0.5),
        (0, 0, 1, (8, 8), 0.5),
        (0, 1, 1, (8, 8), 1.0),
        (5, 1, 1, (80, 8), 1.0),
        (0, 1, 2, (2, 8), 0.375),
        (3, 0, 1, (0, 8), 0.0),
        (0, 0, 0, (0, 8), 0.0),
        (1, 0, 0, (0, 8), 0.5),
        (0, 1, 2, None, 0.5),
        (1, 0, 0, None, 1.0),
        (0, 0, 0, None, 0.0),
    ],
)
def test_it_is_the_mean_of_how_busy_trainers_and_engine_are(
    queued: int, running: int, trainers: int, engine: tuple[int, int] | None, load: float
) -> None:
    work = Work(queued=queued, running=running, trainers=trainers)
    of_engine = None if engine is None else EngineWork(depth=engine[0], slots=engine[1])

    assert load_of(work, of_engine) == load


@given(
    work=st.builds(Work, queued=COUNTS, running=COUNTS, trainers=COUNTS),
    engine=st.none() | st.builds(EngineWork, depth=COUNTS, slots=COUNTS),
)
def test_it_is_never_outside_0_and_1(work: Work, engine: EngineWork | None) -> None:
    assert 0.0 <= load_of(work, engine) <= 1.0
