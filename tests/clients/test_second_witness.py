"""The real engine's own counters beside what the gateway metered, after mixed calls with disconnects."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime

import pytest

from quotas.models import Attempt, CounterSample
from quotas.reconciliation.tests.traffic import (
    Script,
    attempts_of,
    directed,
    last_sample_at,
    play,
    print_table,
    take_sample,
    wait_settled,
    witness_of,
)
from quotas.reconciliation.witness import BackendWitness, CauseKind, Witness, WitnessState
from tenants.scope import role_scope
from tests.clients.real_model import RealModel
from tests.factories import ModelFixture, TenantFixture, enable, make_model, make_tenant
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for

CALLS = 500


@pytest.fixture
def caller(real_model: RealModel) -> tuple[TenantFixture, ModelFixture]:
    model = make_model(
        backend_id=real_model.backend_id,
        upstream_model=real_model.upstream_model,
        context_tokens=2048,
        max_output_tokens=512,
        default_output_cap_tokens=16,
    )
    tenant = make_tenant(granted="50.00")
    enable(tenant, model)
    return tenant, model


def at_rest(model: ModelFixture, tenant: TenantFixture, since: datetime) -> BackendWitness:
    """The comparison since then, once the engine works on nothing any more: it does not stop at once."""
    wait_settled(tenant, timeout_s=60)

    def rested() -> BackendWitness | None:
        take_sample()
        backend = witness_of(model.backend_id, since=since)
        return backend if backend.newest is not None and backend.newest.is_at_rest else None

    found = wait_for(rested, 60, "an engine at rest")
    assert found is not None
    return found


def begin(model: ModelFixture) -> datetime:
    """A first sample while nothing is under way, also nothing that earlier tests have left running."""

    def rested() -> bool:
        take_sample()
        with role_scope("operator"):
            sample = CounterSample.objects.filter(backend_id=model.backend_id).latest("sampled_at")
            open_attempts = Attempt.objects.filter(deployment__backend_id=model.backend_id, ended_at=None)
            return sample.running == 0 and not open_attempts.exists()

    wait_for(rested, 60, "an engine at rest")
    return last_sample_at(model.backend_id)


def newest(backend: BackendWitness) -> Witness:
    assert backend.newest is not None
    return backend.newest


@pytest.mark.timeout(600)
def test_mixed_calls_are_explained_by_the_real_engines_counters(
    gateway: RunningGateway, real_model: RealModel, caller: tuple[TenantFixture, ModelFixture]
) -> None:
    tenant, model = caller
    dice = random.Random(7)
    questions = [f"Say the number {number} and nothing else." for number in range(12)]

    def script() -> Script:
        # Few prompts for many calls, so that most of them find a part of theirs in the cache.
        question, cap = dice.choice(questions), dice.randint(1, 5)
        kind = dice.choices(
            ["plain", "stream", "two choices", "stream of two", "too long", "refused", "leaves"],
            [30, 30, 6, 6, 3, 5, 20],
        )[0]
        match kind:
            case "stream":
                return Script(kind, directed(question, max_tokens=cap, stream=True))
            case "two choices":
                return Script(kind, directed(question, max_tokens=cap, n=2))
            case "stream of two":
                return Script(kind, directed(question, max_tokens=cap, n=2, stream=True))
            case "too long":
                return Script(kind, directed("word " * 6000, max_tokens=cap))
            case "refused":
                return Script(kind, directed(question, max_tokens=cap, n_predict=3))
            case "leaves":
                body = directed("Tell me a long story.", max_tokens=40, stream=True)
                return Script(kind, body, leaves_after_events=dice.randint(1, 12))
            case _:
                return Script(kind, directed(question, max_tokens=cap))

    since = begin(model)
    kinds = play(gateway, tenant, model, [script() for _ in range(CALLS)])
    backend = at_rest(model, tenant, since)
    print_table("real llama.cpp, mixed", backend, kinds)
    witness = newest(backend)
    assert kinds.total() == CALLS
    assert backend.state in (WitnessState.EXPLAINED, WitnessState.AGREES)
    assert not witness.is_unexplained
    assert {cause.kind for cause in witness.causes} <= {CauseKind.CLIENT_GONE}
    outcomes = Counter(attempt["outcome"] for attempt in attempts_of(tenant))
    print(f"  outcomes {dict(outcomes)}")
    assert outcomes["COMPLETED"] > CALLS // 2
    assert outcomes["CLIENT_GONE"] > 0


def test_calls_that_come_to_their_end_differ_by_nothing(
    gateway: RunningGateway, real_model: RealModel, caller: tuple[TenantFixture, ModelFixture]
) -> None:
    tenant, model = caller
    since = begin(model)
    scripts = [
        Script("plain", directed("Name a colour.", max_tokens=8)),
        Script("repeated, so cached", directed("Name a colour.", max_tokens=8)),
        Script("stream", directed("Name a fruit.", max_tokens=8, stream=True)),
        Script("two choices", directed("Name a river.", max_tokens=4, n=2)),
        Script("stream of two", directed("Name a river.", max_tokens=4, n=2, stream=True)),
    ]
    kinds = play(gateway, tenant, model, scripts)
    backend = at_rest(model, tenant, since)
    print_table("real llama.cpp, peaceful", backend, kinds)
    witness = newest(backend)
    assert backend.state == WitnessState.AGREES
    assert not witness.causes
    assert witness.prompt.difference_tokens == witness.completion.difference_tokens == 0
    assert witness.attempts == 7


def test_a_cancelled_stream_counts_what_was_generated_until_the_engine_noticed(
    gateway: RunningGateway, real_model: RealModel, caller: tuple[TenantFixture, ModelFixture]
) -> None:
    tenant, model = caller
    since = begin(model)
    body = directed("Tell me a long story about the sea.", max_tokens=300, stream=True)
    kinds = play(gateway, tenant, model, [Script("leaves", body, leaves_after_events=6)])
    backend = at_rest(model, tenant, since)
    print_table("real llama.cpp, one cancelled stream", backend, kinds)
    (attempt,) = attempts_of(tenant)
    witness = newest(backend)
    assert attempt["outcome"] == "CLIENT_GONE"
    assert backend.state in (WitnessState.EXPLAINED, WitnessState.AGREES)
    assert witness.prompt.difference_tokens == 0
    # The counter includes the cancelled work, and the engine stops within a few tokens.
    assert 0 <= witness.completion.difference_tokens < 100
    assert witness.completion.metered_tokens == attempt["completion_tokens"] > 0


def test_a_whole_answer_that_nobody_waits_for_is_generated_until_the_engine_notices(
    gateway: RunningGateway, real_model: RealModel, caller: tuple[TenantFixture, ModelFixture]
) -> None:
    tenant, model = caller
    since = begin(model)
    # The same answer twice: once awaited, once given up.
    body = directed("Tell me a long story about a mountain.", max_tokens=60, temperature=0)
    play(gateway, tenant, model, [Script("plain", body)])
    whole = newest(at_rest(model, tenant, since))
    assert whole.state == WitnessState.AGREES
    since = last_sample_at(model.backend_id)
    kinds = play(gateway, tenant, model, [Script("gives up", body, leaves_after_s=0.15)])
    backend = at_rest(model, tenant, since)
    print_table("real llama.cpp, one answer given up", backend, kinds)
    witness = newest(backend)
    assert witness.attempts == 1
    assert backend.state == WitnessState.EXPLAINED
    # The gateway knows nothing of what came after: neither prompt nor answer were reported to it.
    assert witness.prompt.metered_tokens == witness.completion.metered_tokens == 0
    assert witness.prompt.counted_tokens == whole.prompt.counted_tokens
    # The engine looks once a second whether anybody waits: what takes less is generated to its end.
    assert 0 < witness.completion.counted_tokens <= whole.completion.counted_tokens
