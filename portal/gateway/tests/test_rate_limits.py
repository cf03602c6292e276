"""What a client is told at each rate limit, and what a refused or a finished call gives back."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from devstack.engines.testing import RunningEngine, sim
from portal.gateway.tests.stage import Answer, Stage, make_stage, on, requests_of
from quotas.models import LimitKind
from tests.factories import issue_key
from tests.gateway_process import RunningGateway
from tests.limits import limit_calls
from tests.waiting import wait_for

RPM, TPM, SLOTS = LimitKind.REQUESTS_RPM, LimitKind.TOKENS_TPM, LimitKind.CONCURRENCY
SCOPES = {
    "organization": "This organization may send 2 requests a minute.",
    "model": "This organization may send 2 requests a minute with the model",
    "key": "This API key may send 2 requests a minute.",
    "model_and_key": "This API key may send 2 requests a minute with the model",
}


@pytest.fixture
def stage(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines["vllm"], "vllm"))


def short(stage: Stage, *, token: str | None = None, max_tokens: int = 10) -> Answer:
    return stage.post(stage.body("go " + sim(tokens=1), max_tokens=max_tokens), token=token)


def assert_refused(answer: Answer, kind: LimitKind, scope: str, value: int) -> None:
    error = answer.error
    code = "concurrency_limit_exceeded" if kind == SLOTS else "rate_limit_exceeded"
    assert (answer.status, error["code"], error["type"]) == (429, code, "rate_limit_error"), error
    named = error["limit"]
    assert (named["kind"], named["scope"], named["value"]) == (kind.value, scope, value)


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_a_minute_in_every_scope(stage: Stage, scope: str) -> None:
    limit_calls(
        stage.tenant.id,
        RPM,
        2,
        model_id=stage.model.id if scope in ("model", "model_and_key") else None,
        api_key_id=stage.tenant.key.id if scope in ("key", "model_and_key") else None,
    )
    other, _ = issue_key(stage.tenant.id)
    assert [short(stage).status for _ in range(2)] == [200, 200]
    before_s = time.time()
    refused = short(stage)
    assert_refused(refused, RPM, scope, 2)
    assert refused.error["message"].startswith(SCOPES[scope])
    wait_s = int(refused.headers["retry-after"])
    assert wait_s == refused.error["limit"]["retry_after_s"]
    assert 1 <= wait_s <= 30
    resets = datetime.fromisoformat(refused.error["limit"]["resets_at"].replace("Z", "+00:00"))
    assert resets.tzinfo == UTC
    assert wait_s - 1.1 <= resets.timestamp() - before_s <= wait_s + 1.1
    # Another key of the organization meets the limits that are not of the first one alone.
    assert short(stage, token=other.token).status == (200 if "key" in scope else 429)
    assert len(requests_of(stage.tenant)) == (3 if "key" in scope else 2)


def test_a_retry_after_the_time_that_was_told_passes(stage: Stage) -> None:
    limit_calls(stage.tenant.id, RPM, 20)
    while (answer := short(stage)).status == 200:
        pass
    wait_s = int(answer.headers["retry-after"])
    assert 1 <= wait_s <= 3
    time.sleep(wait_s)
    assert short(stage).status == 200


def test_tokens_a_minute_come_back_as_far_as_they_are_not_used(stage: Stage) -> None:
    """Each call may need far more than it uses, so that several pass one after the other."""
    limit_calls(stage.tenant.id, TPM, 1_500)
    assert [short(stage, max_tokens=1_000).status for _ in range(4)] == [200] * 4


def test_a_call_that_can_never_pass_is_told_what_would(stage: Stage) -> None:
    limit_calls(stage.tenant.id, TPM, 500, model_id=stage.model.id)
    refused = stage.ask("go " + sim(tokens=1), max_tokens=1_000, n=2)
    assert_refused(refused, TPM, "model", 500)
    assert "retry-after" not in refused.headers
    fits = refused.error["max_tokens_that_fit"]
    assert f"Lower max_tokens to {fits}." in refused.error["message"]
    assert stage.ask("go " + sim(tokens=1), max_tokens=fits + 1, n=2).status == 429
    assert stage.ask("go " + sim(tokens=1), max_tokens=fits, n=2).status == 200
    long = stage.ask("a" * 1_000, max_tokens=1)
    assert_refused(long, TPM, "model", 500)
    assert "Shorten the prompt." in long.error["message"]


def test_calls_at_a_time_one_after_the_other(stage: Stage) -> None:
    limit_calls(stage.tenant.id, SLOTS, 1, api_key_id=stage.tenant.key.id)
    assert [short(stage).status for _ in range(10)] == [200] * 10
    assert all(stage.play_stream(tokens=2).is_done for _ in range(10))


def test_zero_refuses_everything(stage: Stage) -> None:
    for kind in (SLOTS, RPM):
        limit_calls(stage.tenant.id, kind, 0, api_key_id=stage.tenant.key.id)
    refused = short(stage)
    assert_refused(refused, SLOTS, "key", 0)
    assert "retry-after" not in refused.headers


def test_what_the_database_refuses_costs_no_rate(
    gateway: RunningGateway, engines: dict[str, RunningEngine]
) -> None:
    stage = make_stage(gateway, on(engines["vllm"], "vllm"), granted="0.001")
    for kind, value in ((RPM, 2), (TPM, 10_000), (SLOTS, 1)):
        limit_calls(stage.tenant.id, kind, value)
    assert [short(stage, max_tokens=8_000).status for _ in range(5)] == [402] * 5
    assert short(stage).status == 200


def test_a_backend_that_fails_keeps_no_tokens_and_no_slot(stage: Stage) -> None:
    limit_calls(stage.tenant.id, TPM, 1_500)
    limit_calls(stage.tenant.id, SLOTS, 1)
    for _ in range(3):
        assert stage.ask("go " + sim(fault="status:500"), max_tokens=1_000).status == 502
    assert short(stage, max_tokens=1_000).status == 200


def test_a_limit_that_is_lowered_or_raised_holds_within_about_a_second(stage: Stage) -> None:
    assert short(stage).status == 200
    limit_calls(stage.tenant.id, RPM, 1)
    changed_s = time.monotonic()
    wait_for(lambda: short(stage).status == 429, 10, "the new limit")
    took_s = time.monotonic() - changed_s
    limit_calls(stage.tenant.id, RPM, 100_000)
    wait_for(lambda: short(stage).status == 200, 10, "the raised limit")
    print(f"a limit held {took_s:.2f} s after it was set")
