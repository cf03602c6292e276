"""SIGKILL of Valkey and of PostgreSQL while calls run, with the settings that an installation begins with."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from devstack.engines.testing import sim
from devstack.service import Service
from devstack.testing import Services
from quotas.models import LimitKind
from tests.faults.conftest import SetStage
from tests.faults.evidence import (
    assert_audit_holds,
    attempts_without_a_row,
    price_nanos,
    usage_of,
    wait_nothing_held,
)
from tests.faults.stage import Stage
from tests.faults.streams import StreamClient, chat_body, join_all, many_connections
from tests.gateway_process import RunningGateway, running_gateway
from tests.limits import limit_calls
from tests.waiting import wait_for

THREADS = 6
CALLS_BEFORE = 30
CALLS_AFTER = 30

pytestmark = pytest.mark.usefixtures("database")


class Load(threading.Thread):
    """Short calls one after the other until it is told to stop; `calls` with their beginnings."""

    def __init__(self, gateway: RunningGateway, token: str, slug: str) -> None:
        super().__init__(daemon=True)
        self._gateway, self._token = gateway, token
        self._body = chat_body(slug, "go " + sim(tokens=3, rate=0), max_tokens=20)
        self._stopping = threading.Event()
        self.calls: list[tuple[float, StreamClient]] = []

    def run(self) -> None:
        with many_connections() as http:
            while not self._stopping.wait(0.01):
                call = StreamClient(self._gateway.api_base, self._token, self._body, http=http)
                began_s = time.monotonic()
                call.run()
                self.calls.append((began_s, call))

    def stop(self) -> None:
        self._stopping.set()


@contextmanager
def under_load(gateway: RunningGateway, stage: Stage) -> Iterator[list[Load]]:
    threads = [Load(gateway, stage.token, stage.slug) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.stop()
        join_all(threads)


def calls_since(load: list[Load], since_s: float) -> list[StreamClient]:
    return [call for thread in load for began_s, call in list(thread.calls) if began_s >= since_s]


def wait_for_calls(load: list[Load], count: int, *, status: int, since_s: float = 0.0) -> None:
    wait_for(
        lambda: sum(call.status == status for call in calls_since(load, since_s)) >= count,
        30,
        f"{count} calls with {status}",
    )


def kill(server: Service) -> None:
    assert server.child is not None
    os.kill(server.child.pid, signal.SIGKILL)
    server.child.popen.wait(5)


def assert_money_is_exact(load: list[Load], stage: Stage) -> None:
    """Whatever was served has a durable row and was charged to the token; whatever was refused was not."""
    headers = [dict(record["headers"]) for record in stage.engine.requests()]
    assert attempts_without_a_row([header["x-request-id"] for header in headers]) == []
    usage = usage_of(stage.tenant_id)
    for call in calls_since(load, 0.0):
        if call.status == 200:
            (record,) = usage[call.call_id]
            assert record["completion_tokens"] == call.words == 3
            assert record["charged_nanos"] == price_nanos(record["prompt_tokens"], call.words)
    assert_audit_holds()


def failed_open(gateway: RunningGateway) -> float:
    text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
    found = re.search(r"^sluice_rate_limits_failed_open_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_calls_go_on_without_valkey(set_stage: SetStage, services: Services, tmp_path: Path) -> None:
    stage = set_stage("vllm")
    limit_calls(stage.tenant_id, LimitKind.REQUESTS_RPM, 1_000_000)
    limit_calls(stage.tenant_id, LimitKind.CONCURRENCY, 1_000)
    with running_gateway(tmp_path) as gateway:
        with under_load(gateway, stage) as load:
            wait_for_calls(load, CALLS_BEFORE, status=200)
            before = failed_open(gateway)
            kill(services.valkey)
            killed_s = time.monotonic()
            try:
                wait_for_calls(load, CALLS_AFTER, status=200, since_s=killed_s)
                counted = failed_open(gateway) - before
            finally:
                services.valkey.start()
            back_s = time.monotonic()
            wait_for_calls(load, CALLS_AFTER, status=200, since_s=back_s)
        wait_nothing_held(stage.tenant_id)
    calls = calls_since(load, 0.0)
    print(f"{Counter(call.status for call in calls)}, slowest {max(call.took_s for call in calls):.2f} s")
    assert {(call.status, call.ending) for call in calls} == {(200, "done")}
    assert counted >= CALLS_AFTER
    assert_money_is_exact(load, stage)


def test_without_postgresql_calls_are_refused_within_a_second(
    set_stage: SetStage, services: Services, tmp_path: Path
) -> None:
    from django.db import connections

    stage = set_stage("vllm")
    with running_gateway(tmp_path) as gateway:
        with under_load(gateway, stage) as load:
            wait_for_calls(load, CALLS_BEFORE, status=200)
            kill(services.postgres)
            killed_s = time.monotonic()
            try:
                wait_for_calls(load, CALLS_AFTER, status=503, since_s=killed_s)
                refused = calls_since(load, killed_s)
            finally:
                services.postgres.start()
                # The session's own connections died as well.
                connections.close_all()
            back_s = time.monotonic()
            wait_for_calls(load, CALLS_AFTER, status=200, since_s=back_s)
        wait_nothing_held(stage.tenant_id, timeout_s=60.0)
    calls = calls_since(load, 0.0)
    slowest_s = max(call.took_s for call in refused)
    print(f"{Counter(call.status for call in calls)}, slowest refusal {slowest_s:.2f} s")
    assert {call.status for call in calls} <= {200, 503}
    assert {(call.status, call.retry_after) for call in refused} == {(503, "1")}
    # A second, and what a crowded machine takes to say so.
    assert slowest_s < 2.0
    assert_money_is_exact(load, stage)
