"""Counters and metering side by side, over mixed traffic through a real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2 as httpx
import pytest

from devstack.engines.options import Flavour
from devstack.engines.testing import RunningEngine, sim, start_engine
from models_catalog.models import FleetState, ServingBackend
from quotas.reconciliation.tests.traffic import (
    Script,
    attempts_of,
    directed,
    last_sample_at,
    play,
    print_table,
    simulated_calls,
    take_sample,
    wait_settled,
    witness_of,
)
from quotas.reconciliation.witness import CauseKind, WitnessState
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import ModelFixture, TenantFixture, enable, make_backend, make_model, make_tenant
from tests.gateway_process import RunningGateway

pytestmark = pytest.mark.usefixtures("database")
FLAVOURS: tuple[Flavour, ...] = ("llamacpp", "vllm", "sglang")
Stage = tuple[RunningEngine, TenantFixture, ModelFixture]


@contextmanager
def stage(flavour: Flavour) -> Iterator[Stage]:
    """An engine, and a tenant with a model on it; one sample has been taken."""
    with start_engine(flavour, tokens_per_s=0) as engine:
        backend_id = make_backend(engine=flavour, base_url=engine.url)
        try:
            model = make_model(
                backend_id=backend_id, upstream_model="sim-model", context_tokens=8192, max_output_tokens=4096
            )
            tenant = make_tenant(granted="50.00")
            enable(tenant, model)
            take_sample()
            yield engine, tenant, model
        finally:
            with role_scope("operator"):
                ServingBackend.objects.filter(id=backend_id).update(state=FleetState.DISABLED)


def ask_engine(engine: RunningEngine, tokens: int) -> None:
    """A call past the gateway."""
    body = {"model": "sim-model", "max_tokens": 1000, **directed(sim(tokens=tokens, prompt=11, rate=0))}
    assert httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=10).status_code == 200


def settle_and_sample(engine: RunningEngine, tenant: TenantFixture) -> None:
    wait_settled(tenant)
    engine.wait_idle(timeout_s=30)
    take_sample()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_calls_that_come_to_their_end_agree_to_the_token(flavour: Flavour, gateway: RunningGateway) -> None:
    with stage(flavour) as (engine, tenant, model):
        kinds = play(gateway, tenant, model, simulated_calls(150, seed=1, is_peaceful=True))
        settle_and_sample(engine, tenant)
        backend = witness_of(model.backend_id)
        print_table(f"{flavour}, peaceful", backend, kinds)
        witness = backend.newest
        assert witness is not None
        assert witness.is_at_rest
        assert backend.state == WitnessState.AGREES
        assert not witness.causes
        books = engine.totals()
    # The gateway, the counters and the simulator's own books: three accounts, one number.
    assert witness.prompt.counted_tokens == witness.prompt.metered_tokens == books["prompt_tokens"] > 0
    assert (
        witness.completion.counted_tokens
        == witness.completion.metered_tokens
        == books["generated_tokens"]
        > 0
    )
    assert witness.attempts == books["requests"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_mixed_calls_are_explained_to_the_token(flavour: Flavour, gateway: RunningGateway) -> None:
    with stage(flavour) as (engine, tenant, model):
        kinds = play(gateway, tenant, model, simulated_calls(200, seed=2))
        settle_and_sample(engine, tenant)
        backend = witness_of(model.backend_id)
        print_table(f"{flavour}, mixed", backend, kinds)
        records = {record["wire_id"]: record for record in engine.requests() if record["wire_id"]}
        books = engine.totals()
    witness = backend.newest
    assert witness is not None
    assert witness.is_at_rest
    assert backend.state == WitnessState.EXPLAINED
    assert (witness.prompt.unexplained_tokens, witness.completion.unexplained_tokens) == (0, 0)
    assert witness.completion.counted_tokens == books["generated_tokens"]
    assert {cause.kind for cause in witness.causes} == {
        CauseKind.CLIENT_GONE,
        CauseKind.FAILED,
        CauseKind.NO_FINAL_USAGE,
    }
    # Every token of the difference belongs to an attempt that a cause names: the others agree one by one.
    named = {"prompt": 0, "completion": 0}
    unread = books["prompt_tokens"], books["generated_tokens"]
    for attempt in attempts_of(tenant):
        record = records.get(attempt["wire_id"])
        if attempt["outcome"] == "COMPLETED" and attempt["completion_tokens"] is not None:
            assert record is not None
            assert record["prompt_tokens"] == attempt["prompt_tokens"]
            assert record["generated_tokens"] == attempt["completion_tokens"]
            unread = unread[0] - record["prompt_tokens"], unread[1] - record["generated_tokens"]
        else:
            named["prompt"] += attempt["prompt_tokens"] or 0
            named["completion"] += attempt["completion_tokens"] or 0
    assert witness.prompt.difference_tokens == unread[0] - named["prompt"]
    assert witness.completion.difference_tokens == unread[1] - named["completion"]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_traffic_of_somebody_else_is_not_explained(flavour: Flavour, gateway: RunningGateway) -> None:
    with stage(flavour) as (engine, tenant, model):
        play(gateway, tenant, model, simulated_calls(10, seed=3, is_peaceful=True))
        ask_engine(engine, 23)
        settle_and_sample(engine, tenant)
        backend = witness_of(model.backend_id)
    assert backend.state == WitnessState.UNEXPLAINED
    assert backend.newest is not None
    assert backend.newest.prompt.unexplained_tokens == 11
    assert backend.newest.completion.unexplained_tokens == 23


def test_a_backend_that_reports_more_than_it_counts_is_not_explained(gateway: RunningGateway) -> None:
    with stage("vllm") as (engine, tenant, model):
        play(gateway, tenant, model, [Script("lies", directed(sim(tokens=9, fault="usage_lies:+5")))])
        settle_and_sample(engine, tenant)
        backend = witness_of(model.backend_id)
    assert backend.state == WitnessState.UNEXPLAINED
    assert backend.newest is not None
    assert backend.newest.completion.unexplained_tokens == -5


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_runs_accounts_for_the_difference_until_it_rests(
    flavour: Flavour, gateway: RunningGateway
) -> None:
    slow = Script("slow", directed(sim(tokens=60, rate=25, prompt=30), stream=True))
    with stage(flavour) as (engine, tenant, model), ThreadPoolExecutor(1) as pool:
        running = pool.submit(play, gateway, tenant, model, [slow])
        engine.wait_running(1, timeout_s=10)
        # One sample in the middle, another beside it, so that a window begins and one ends within the call.
        take_sample()
        middle = last_sample_at(model.backend_id)
        backend = witness_of(model.backend_id)
        assert backend.state == WitnessState.MOVING
        assert backend.newest is not None
        assert backend.newest.in_flight == 1
        assert [cause.kind for cause in backend.newest.causes] == [CauseKind.IN_FLIGHT]
        running.result(30)
        settle_and_sample(engine, tenant)
        whole = witness_of(model.backend_id)
        part = witness_of(model.backend_id, since=middle)
    assert whole.state == WitnessState.AGREES
    assert part.newest is not None
    assert part.newest.completion.metered_tokens == 60
    assert not part.newest.is_unexplained
    assert CauseKind.ACROSS_START in {cause.kind for cause in part.newest.causes}


def test_a_restart_is_two_lives_and_what_lies_between_is_said_to_be_unknown(gateway: RunningGateway) -> None:
    calls = [Script("plain", directed(sim(tokens=9, prompt=20, rate=0)))] * 3
    with stage("vllm") as (engine, tenant, model):
        play(gateway, tenant, model, calls)
        settle_and_sample(engine, tenant)
        play(gateway, tenant, model, calls[:2])
        wait_settled(tenant)
        engine.kill()
        take_sample()
        with start_engine("vllm", tokens_per_s=0, port=int(engine.url.rpartition(":")[2])) as restarted:
            play(gateway, tenant, model, calls[:1])
            settle_and_sample(restarted, tenant)
            play(gateway, tenant, model, calls)
            settle_and_sample(restarted, tenant)
            backend = witness_of(model.backend_id)
    assert [(one.incarnation, one.attempts, one.state) for one in backend.witnesses] == [
        (2, 3, WitnessState.AGREES),
        (1, 3, WitnessState.AGREES),
    ]
    assert (backend.unknown_attempts, backend.unknown_tokens) == (3, 3 * 29)
    assert not backend.is_stale
    assert backend.error == ""


def test_backends_without_counters_and_out_of_reach_are_told_apart(gateway: RunningGateway) -> None:
    with start_engine("generic") as silent, stage("vllm") as (engine, _, model):
        generic = make_backend(engine="generic", base_url=silent.url)
        unheard = make_backend()
        take_sample()
        engine.stop()
        take_sample()
        no_counters, unread, lost = (witness_of(id_) for id_ in (generic, unheard, model.backend_id))
    assert (no_counters.state, no_counters.error) == (WitnessState.UNREADABLE, "answered HTTP 404")
    assert (unread.state, unread.read_at) == (WitnessState.UNREADABLE, None)
    assert lost.error == "not reachable (ClientConnectorError)"
    assert lost.read_at is not None
    assert lost.failing_since is not None
    assert lost.failing_since > lost.read_at
    with role_scope("operator"):
        ServingBackend.objects.filter(id__in=[generic, unheard]).update(state=FleetState.DISABLED)


def test_an_old_llamacpp_that_hides_cached_tokens_is_compared_without_them(gateway: RunningGateway) -> None:
    with stage("llamacpp") as (engine, tenant, model):
        play(gateway, tenant, model, simulated_calls(40, seed=5, is_peaceful=True))
        settle_and_sample(engine, tenant)
        with connected("owner") as connection:
            connection.execute("ALTER TABLE quotas_countersample DISABLE TRIGGER append_only")
            connection.execute(
                "UPDATE quotas_countersample SET cached_tokens = NULL WHERE backend_id = %s",
                (model.backend_id,),
            )
            connection.execute("ALTER TABLE quotas_countersample ENABLE TRIGGER append_only")
        witness = witness_of(model.backend_id).newest
        assert witness is not None
        books = engine.totals()
    assert witness.prompt.counted_tokens == books["prompt_tokens"] - books["cached_tokens"]
    assert witness.completion.difference_tokens == 0
    assert [cause.kind for cause in witness.causes] == [CauseKind.CACHED_UNKNOWN]
    assert witness.state == WitnessState.EXPLAINED


def test_a_window_ends_and_begins_with_its_samples(gateway: RunningGateway) -> None:
    """What was served before the window is in neither column."""
    calls = [Script("plain", directed(sim(tokens=9, prompt=20, rate=0)))] * 5
    with stage("vllm") as (engine, tenant, model):
        play(gateway, tenant, model, calls)
        settle_and_sample(engine, tenant)
        begin = last_sample_at(model.backend_id)
        play(gateway, tenant, model, calls[:2])
        settle_and_sample(engine, tenant)
        witness = witness_of(model.backend_id, since=begin).newest
    assert witness is not None
    assert witness.completion.counted_tokens == witness.completion.metered_tokens == 2 * 9
    assert witness.attempts == 2
