"""When a project is trained without being asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_backend.learning import TriggerPolicy
from ml_backend.service.policy import PolicyFacts, decide

NOW = 1_800_000_000.0
POLICY = TriggerPolicy()
READY = PolicyFacts(
    now=NOW,
    annotated=10,
    changed=10,
    last_change=NOW - 60,
    last_ended=NOW - 300,
    is_busy=False,
)


def test_ten_new_tasks_a_minute_of_quiet_and_five_of_pause_start_a_training() -> None:
    assert decide(POLICY, READY).train
    assert decide(POLICY, replace(READY, last_ended=None, last_change=None)).train


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"changed": 9}, "9 of 10"),
        ({"changed": 0}, "No annotation has changed"),
        ({"annotated": 2}, "2 of at least 3"),
        ({"last_change": NOW - 59}, "quiet"),
        ({"last_ended": NOW - 299}, "ended less than"),
        ({"is_busy": True}, "waits or runs"),
    ],
    ids=str,
)
def test_one_thing_that_is_missing_holds_it_back(facts: dict[str, object], words: str) -> None:
    decision = decide(POLICY, replace(READY, **facts))  # type: ignore[arg-type]

    assert not decision.train
    assert words in decision.reason


def test_a_manual_project_waits_for_a_person() -> None:
    assert not decide(replace(POLICY, manual=True), READY).train


def test_it_looks_again_when_the_quiet_is_over() -> None:
    assert decide(POLICY, replace(READY, last_change=NOW - 57)).look_again_in_s == 3


@given(
    st.builds(
        PolicyFacts,
        now=st.just(NOW),
        annotated=st.integers(0, 20),
        changed=st.integers(0, 20),
        last_change=st.none() | st.floats(NOW - 200, NOW + 200),
        last_ended=st.none() | st.floats(NOW - 900, NOW + 900),
        is_busy=st.booleans(),
    )
)
def test_it_trains_exactly_when_nothing_is_missing(facts: PolicyFacts) -> None:
    decision = decide(POLICY, facts)

    quiet = facts.last_change is None or NOW - facts.last_change >= POLICY.quiet_s
    paused = facts.last_ended is None or NOW - facts.last_ended >= POLICY.pause_s
    enough = facts.changed >= POLICY.new_tasks and facts.annotated >= POLICY.min_tasks
    assert decision.train == (quiet and paused and enough and not facts.is_busy)
    assert 0 < decision.look_again_in_s <= 15
