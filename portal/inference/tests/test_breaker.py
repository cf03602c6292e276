"""The circuit breaker, in made-up time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.inference.breaker import (
    FAILURES_IN_A_ROW,
    MAX_OPEN_S,
    OPEN_S,
    PROBE_S,
    SLOW_START_S,
    SLOW_START_SHARE,
    Breaker,
    BreakerState,
)


def failed(breaker: Breaker, now_s: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(now_s, "UNREACHABLE", is_silent=True)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    failed(breaker, now_s, FAILURES_IN_A_ROW)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker()
    failed(breaker, 0, FAILURES_IN_A_ROW - 1)
    breaker.succeeded(0)
    failed(breaker, 0, FAILURES_IN_A_ROW - 1)
    assert breaker.look(0) is BreakerState.CLOSED
    assert breaker.failed(0, "UNREACHABLE", is_silent=True)
    assert breaker.look(0) is BreakerState.OPEN
    assert (breaker.reason, breaker.is_silent) == ("UNREACHABLE", True)


def test_it_opens_when_more_than_half_fail() -> None:
    breaker = Breaker()
    for number in range(60):
        if breaker.look(0) is not BreakerState.CLOSED:
            break
        if number % 4 == 3:
            breaker.succeeded(0)
        else:
            breaker.failed(0, "BACKEND_FAILED", is_silent=False)
    assert breaker.look(0) is BreakerState.OPEN


def test_a_third_that_fails_is_borne() -> None:
    breaker = Breaker()
    for number in range(300):
        if number % 3 == 2:
            breaker.failed(0, "BACKEND_FAILED", is_silent=False)
        else:
            breaker.succeeded(0)
    assert breaker.look(0) is BreakerState.CLOSED


def test_one_call_probes_and_closes_it() -> None:
    breaker = opened()
    assert not breaker.claim_probe(OPEN_S - 0.1)
    assert breaker.claim_probe(OPEN_S)
    assert not breaker.claim_probe(OPEN_S)
    breaker.probing(OPEN_S)
    breaker.succeeded(OPEN_S + 0.5)
    assert breaker.look(OPEN_S + 0.5) is BreakerState.CLOSED


def test_a_probe_that_is_never_sent_leaves_room_for_another() -> None:
    breaker = opened()
    assert breaker.claim_probe(OPEN_S)
    assert breaker.claim_probe(OPEN_S + PROBE_S)


def test_failed_probes_wait_longer_and_longer() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(6):
        begun_s = now_s
        while not breaker.claim_probe(now_s):
            now_s += 0.5
        waits.append(now_s - begun_s)
        failed(breaker, now_s)
    assert waits == [5, 10, 20, 40, MAX_OPEN_S, MAX_OPEN_S]


def test_a_sign_of_life_brings_the_probe_forward() -> None:
    breaker = opened()
    breaker.try_again(1.0)
    assert breaker.claim_probe(1.0)


def test_what_returns_gets_its_load_back_little_by_little() -> None:
    breaker = opened()
    assert breaker.claim_probe(OPEN_S)
    breaker.succeeded(OPEN_S)
    shares = [breaker.share(OPEN_S + part * SLOW_START_S) for part in (0, 0.5, 0.99)]
    assert shares[0] == SLOW_START_SHARE
    assert shares == sorted(shares)
    assert not breaker.is_clear(OPEN_S + 0.9 * SLOW_START_S)
    assert breaker.is_clear(OPEN_S + SLOW_START_S)


def test_late_successes_do_not_close_what_is_open() -> None:
    breaker = opened()
    breaker.succeeded(1.0)
    assert breaker.look(1.0) is BreakerState.OPEN


@given(
    events=st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from(["fail", "succeed", "claim", "probing", "sign", "look"])),
        max_size=200,
    )
)
def test_at_most_one_probe_at_a_time_and_never_open_for_ever(events: list[tuple[float, str]]) -> None:
    breaker, now_s = Breaker(), 0.0
    claimed_s: float | None = None
    for elapsed_s, event in events:
        now_s += elapsed_s
        before = breaker.look(now_s)
        match event:
            case "fail":
                breaker.failed(now_s, "X", is_silent=False)
            case "succeed":
                breaker.succeeded(now_s)
            case "claim" if breaker.claim_probe(now_s):
                assert claimed_s is None or now_s - claimed_s >= PROBE_S
                claimed_s = now_s
            case "probing":
                breaker.probing(now_s)
            case "sign":
                breaker.try_again(now_s)
        if breaker.look(now_s) is not before:
            claimed_s = None
        assert SLOW_START_SHARE <= breaker.share(now_s) <= 1
    assert breaker.look(now_s + MAX_OPEN_S) is not BreakerState.OPEN
    assert breaker.is_clear(now_s + 1e6) or breaker.state is BreakerState.HALF_OPEN


@pytest.mark.parametrize("outcomes", [1, 20])
def test_closing_forgets_what_was(outcomes: int) -> None:
    breaker = opened()
    failed(breaker, 0, outcomes)
    assert breaker.claim_probe(OPEN_S)
    breaker.succeeded(OPEN_S)
    failed(breaker, OPEN_S, FAILURES_IN_A_ROW - 1)
    assert breaker.look(OPEN_S) is BreakerState.CLOSED
