"""PostgreSQL stops as in a crash while calls run, shortly and for longer than a lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest

from devstack.engines.testing import sim
from devstack.testing import Services
from quotas import operations
from tests.faults.conftest import SetStage
from tests.faults.evidence import (
    assert_audit_holds,
    attempts_without_a_row,
    database_clock,
    holds_of,
    is_nothing_held,
    price_nanos,
    usage_of,
    wait_nothing_held,
)
from tests.faults.stage import Stage
from tests.faults.streams import StreamClient, chat_body, join_all, streaming
from tests.gateway_process import RunningGateway, running_gateway
from tests.waiting import wait_for

LEASE_S = 30
CHECKPOINT_S = 1
TUNING = {
    "SLUICE_LEASE_S": str(LEASE_S),
    "SLUICE_CHECKPOINT_S": str(CHECKPOINT_S),
    "SLUICE_ADMISSION_DEADLINE_S": "1",
    "SLUICE_DRAIN_S": "1",
}
LOAD_THREADS = 4


@contextmanager
def database_away(services: Services) -> Iterator[None]:
    """PostgreSQL is stopped without ceremony, and started again at the end."""
    from django.db import connections

    services.postgres.stop(hurry=lambda: True)
    try:
        yield
    finally:
        services.postgres.start()
        # The session's own connections died as well.
        connections.close_all()


def short_call(gateway: RunningGateway, token: str, slug: str) -> StreamClient:
    """One short streamed call, to its end."""
    body = chat_body(slug, "go " + sim(tokens=3, rate=100), max_tokens=20)
    call = StreamClient(gateway.api_base, token, body)
    call.run()
    return call


class Load(threading.Thread):
    """Short calls one after the other, until it is told to stop."""

    def __init__(self, gateway: RunningGateway, token: str, slug: str) -> None:
        super().__init__(daemon=True)
        self._gateway, self._token, self._slug = gateway, token, slug
        self._stopping = threading.Event()
        self.calls: list[StreamClient] = []

    def run(self) -> None:
        while not self._stopping.wait(0.02):
            self.calls.append(short_call(self._gateway, self._token, self._slug))

    def stop(self) -> None:
        self._stopping.set()


@contextmanager
def under_load(gateway: RunningGateway, token: str, slug: str) -> Iterator[list[Load]]:
    threads = [Load(gateway, token, slug) for _ in range(LOAD_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()
        join_all(threads)


def are_checkpointed_since(moment: datetime, streams: list[StreamClient], stage: Stage) -> bool:
    holds = holds_of(stage.tenant_id)
    return all(
        hold["state"] == "PENDING" and hold["checkpoint_at"] > moment
        for hold in (holds[stream.call_id] for stream in streams)
    )


def assert_refused_promptly(gateway: RunningGateway, token: str, slug: str, what: str) -> None:
    call = short_call(gateway, token, slug)
    print(f"{what}: {call.status} with Retry-After {call.retry_after} after {call.took_s:.2f} s")
    assert (call.status, call.retry_after) == (503, "1"), call.error
    assert call.took_s < 3


def assert_every_served_call_is_recorded(stage: Stage) -> int:
    """Whatever the engine was asked to do has a durable request, attempt and hold. Returns how many."""
    headers = [dict(record["headers"]) for record in stage.engine.requests()]
    assert attempts_without_a_row([header["x-request-id"] for header in headers]) == []
    return len(headers)


def assert_served_calls_are_paid(calls: list[StreamClient], stage: Stage) -> None:
    usage = usage_of(stage.tenant_id)
    for call in calls:
        if call.status == 200:
            record = usage[call.call_id][-1]
            assert record["completion_tokens"] == call.words
            assert record["charged_nanos"] == price_nanos(record["prompt_tokens"], call.words)


def nothing_held_once_swept(*tenant_ids: UUID) -> bool:
    """What the sweeper, which runs in no process here, leaves."""
    if all(map(is_nothing_held, tenant_ids)):
        return True
    # All has ended, so that nobody needs a lease after the outage to renew what is his.
    operations.sweep_expired_holds(lease_s=0)
    return False


def test_a_short_outage_is_survived(set_stage: SetStage, services: Services, tmp_path: Path) -> None:
    stage = set_stage("vllm")
    stranger = stage.another_tenant()
    with running_gateway(tmp_path, **TUNING) as gateway, under_load(gateway, stage.token, stage.slug) as load:
        with streaming(
            gateway.api_base, stage.token, stage.slug, count=6, tokens=4_000, rate=25, min_words=10
        ) as streams:
            with database_away(services):
                assert_refused_promptly(gateway, stage.token, stage.slug, "a key that is cached")
                assert_refused_promptly(gateway, stranger.key.token, stage.slug, "a key that is not cached")
                words_before = [stream.words for stream in streams]
                wait_for(
                    lambda: all(
                        stream.words > words for stream, words in zip(streams, words_before, strict=True)
                    ),
                    5,
                    "streams that go on without PostgreSQL",
                )
            returned_s = time.monotonic()
            wait_for(
                lambda: short_call(gateway, stage.token, stage.slug).status == 200,
                15,
                "service that returns by itself",
            )
            print(f"service returned {time.monotonic() - returned_s:.2f} s after PostgreSQL")
            back_at = database_clock()
            wait_for(
                lambda: are_checkpointed_since(back_at, streams, stage),
                LEASE_S,
                "streams whose lease is renewed again",
            )
            assert all(stream.is_alive() for stream in streams)
        for thread in load:
            thread.stop()
        join_all(load)
        # One that was admitted while the answer of its commit got lost is held until its lease ends.
        wait_for(lambda: nothing_held_once_swept(stage.tenant_id, stranger.id), LEASE_S + 15, "no open hold")
    calls = [call for thread in load for call in thread.calls]
    served = sum(1 for call in calls if call.status == 200)
    print(
        f"load: {served} served, {len(calls) - served} refused with { ({c.status for c in calls} - {200}) }"
    )
    assert {call.status for call in calls} <= {200, 503}
    assert max(call.took_s for call in calls) < 4
    recorded = assert_every_served_call_is_recorded(stage)
    print(f"the engine saw {recorded} requests, all recorded")
    assert_served_calls_are_paid(calls, stage)
    assert_audit_holds()


@pytest.mark.usefixtures("database")
def test_an_outage_longer_than_the_lease_cuts_the_streams(
    set_stage: SetStage, services: Services, tmp_path: Path
) -> None:
    stage = set_stage("vllm")
    with running_gateway(tmp_path, **{**TUNING, "SLUICE_LEASE_S": "4"}) as gateway:
        with streaming(
            gateway.api_base, stage.token, stage.slug, count=6, tokens=4_000, rate=25, min_words=30
        ) as streams:
            with database_away(services):
                stopped_s = time.monotonic()
                join_all(streams, 10)
                cut_after_s = time.monotonic() - stopped_s
            print(f"cut {cut_after_s:.1f} s after PostgreSQL stopped; the lease is 4 s")
        assert {stream.ending for stream in streams} == {"error_event"}
        assert cut_after_s < 4
        wait_nothing_held(stage.tenant_id)
    holds = holds_of(stage.tenant_id)
    assert {(hold["state"], hold["resolved_by"]) for hold in holds.values()} == {("POSTED", "GATEWAY")}
    assert_every_served_call_is_recorded(stage)
    assert_served_calls_are_paid(streams, stage)
    assert_audit_holds()
