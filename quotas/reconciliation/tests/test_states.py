"""When the two witnesses are said to agree, and when not: the arithmetic alone, without a backend."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from portal.kit.ids import uuid7
from quotas.reconciliation.witness import BackendWitness, Comparison, Witness, WitnessState

NOW = datetime(2026, 11, 25, tzinfo=UTC)
EVEN = Comparison(1_000, 1_000, 0)


def life(prompt: Comparison = EVEN, *, in_flight: int = 0, recent: int = 0) -> Witness:
    return Witness(
        incarnation=1,
        from_at=NOW - timedelta(hours=1),
        to_at=NOW,
        attempts=3,
        in_flight=in_flight,
        running=in_flight,
        prompt=prompt,
        completion=EVEN,
        causes=(),
        recent_prompt_tokens=recent,
    )


def backend(*lives: Witness, **fields: object) -> BackendWitness:
    found = BackendWitness(uuid7(), "b", "vllm", "ACTIVE", NOW, None, "", False, lives, 0, 0)
    return replace(found, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "in_flight", "recent", "state"),
    [
        (EVEN, 0, 0, WitnessState.AGREES),
        (EVEN, 2, 0, WitnessState.MOVING),
        (Comparison(1_005, 1_000, 5), 0, 0, WitnessState.EXPLAINED),
        (Comparison(1_006, 1_000, 5), 0, 0, WitnessState.UNEXPLAINED),
        (Comparison(1_001, 1_000, 0), 2, 500, WitnessState.UNEXPLAINED),
        # A counter may lag behind calls that ended just now while the engine works, not behind older ones.
        (Comparison(600, 1_000, 0), 2, 400, WitnessState.MOVING),
        (Comparison(599, 1_000, 0), 2, 400, WitnessState.UNEXPLAINED),
        (Comparison(600, 1_000, 0), 0, 400, WitnessState.UNEXPLAINED),
    ],
)
def test_the_state_of_a_life(prompt: Comparison, in_flight: int, recent: int, state: WitnessState) -> None:
    assert life(prompt, in_flight=in_flight, recent=recent).state == state


def test_a_backend_agrees_only_when_all_was_compared_and_lately() -> None:
    assert backend(life()).state == WitnessState.AGREES
    assert backend(life(), is_stale=True).state == WitnessState.INCOMPLETE
    assert backend(life(), unknown_attempts=2, unknown_tokens=90).state == WitnessState.INCOMPLETE
    # What is wrong stays wrong, however old it is.
    wrong = life(Comparison(1_006, 1_000, 5))
    assert backend(life(), wrong, is_stale=True).state == WitnessState.UNEXPLAINED
