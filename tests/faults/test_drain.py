"""SIGTERM while streams are open."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import httpx2 as httpx

from devstack.engines.testing import sim
from tests.database import rows_of
from tests.faults.conftest import SetStage
from tests.faults.evidence import assert_audit_holds, holds_of, pending_holds, price_nanos, usage_of
from tests.faults.streams import chat_body, join_all, streaming
from tests.gateway_process import RunningGateway, start_gateway

DRAIN_S = 3
SHORT, LONG = 15, 15


def readiness(url: str) -> int | None:
    """The status of /readyz; None when the gateway takes no connections any more."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code
    except httpx.TransportError:
        return None


def test_streams_end_within_the_drain_or_are_cut_and_all_is_billed(
    set_stage: SetStage, tmp_path: Path
) -> None:
    stage = set_stage("llamacpp")
    gateway = start_gateway(tmp_path, SLUICE_DRAIN_S=str(DRAIN_S), SLUICE_LEASE_S="20")
    try:
        with (
            streaming(
                gateway.api_base, stage.token, stage.slug, count=LONG, tokens=4_000, rate=25
            ) as long_ones,
            streaming(
                gateway.api_base, stage.token, stage.slug, count=SHORT, tokens=50, rate=25
            ) as short_ones,
        ):
            os.kill(gateway.pid, signal.SIGTERM)
            started_s = time.monotonic()
            status = readiness(gateway.url)
            assert status in (503, None)
            exit_code = gateway.child.popen.wait(DRAIN_S + 15)
            took_s = time.monotonic() - started_s
            held = pending_holds(stage.tenant_id)
            join_all([*long_ones, *short_ones])
    finally:
        gateway.stop()
    print(
        f"/readyz said {status} after SIGTERM; exit code {exit_code} after {took_s:.1f} s, {held} holds open"
    )
    assert exit_code == 0, gateway.log()
    assert held == 0
    assert {stream.ending for stream in short_ones} == {"done"}
    assert {stream.words for stream in short_ones} == {50}
    assert {stream.ending for stream in long_ones} == {"error_event"}
    assert {stream.error["code"] for stream in long_ones} == {"overloaded"}
    usage, holds = usage_of(stage.tenant_id), holds_of(stage.tenant_id)
    assert len(usage) == SHORT + LONG
    for stream in [*short_ones, *long_ones]:
        (record,) = usage[stream.call_id]
        assert record["completion_tokens"] == stream.words
        assert record["charged_nanos"] == price_nanos(record["prompt_tokens"], stream.words)
        assert (holds[stream.call_id]["state"], holds[stream.call_id]["resolved_by"]) == ("POSTED", "GATEWAY")
        (attempt,) = rows_of("quotas_attempt", request_id=stream.call_id)
        assert attempt["outcome"] == ("COMPLETED" if stream in short_ones else "CUT")
    assert_audit_holds()


MANY = 500
MANY_TOKENS, MANY_RATE = 14, 2


class Stream:
    """One of very many streams: a raw answer, read to its end."""

    def __init__(self) -> None:
        self.received = b""
        self.has_begun = asyncio.Event()

    async def run(self, gateway: RunningGateway, request: bytes) -> None:
        host, _, port = gateway.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        while piece := await reader.read(65536):
            self.received += piece
            if b"data: " in self.received:
                self.has_begun.set()
            if self.received.endswith(b"\r\n0\r\n\r\n"):
                break
        writer.close()

    @property
    def words(self) -> int:
        return self.received.count(b'"content":"w') + self.received.count(b'"content":" w')

    @property
    def is_done(self) -> bool:
        return b"data: [DONE]" in self.received

    @property
    def is_cut(self) -> bool:
        return b'"code":"overloaded"' in self.received


def as_request(token: str, body: dict[str, object]) -> bytes:
    encoded = json.dumps(body).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(encoded)}\r\n\r\n"
    ).encode() + encoded


async def _drain(gateway: RunningGateway, token: str, slug: str) -> list[Stream]:
    """Opens the streams, sends the signal, knocks at both doors, and reads everything to its end."""
    streams = [Stream() for _ in range(MANY)]
    tasks = []
    for number, stream in enumerate(streams):
        text = sim(tokens=MANY_TOKENS if number % 2 else 4_000, rate=MANY_RATE)
        request = as_request(token, chat_body(slug, text, max_tokens=4_000))
        tasks.append(asyncio.create_task(stream.run(gateway, request)))
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(stream.has_begun.wait() for stream in streams))
    except TimeoutError:
        late = [stream.received[:300] for stream in streams if not stream.has_begun.is_set()]
        raise AssertionError(f"{len(late)} streams did not begin: {late[:3]}") from None
    body, headers = chat_body(slug, "hello", stream=False), {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=10) as kept,
        httpx.AsyncClient(trust_env=False, timeout=10) as fresh,
    ):
        assert (await kept.get(f"{gateway.url}/readyz")).status_code == 200
        os.kill(gateway.pid, signal.SIGTERM)
        await asyncio.sleep(0.5)
        for client in (kept, fresh):
            assert (await client.get(f"{gateway.url}/readyz")).status_code == 503
            refused = await client.post(f"{gateway.api_base}/chat/completions", json=body, headers=headers)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    return streams


def test_five_hundred_streams_end_in_order_and_newcomers_are_sent_away(
    set_stage: SetStage, tmp_path: Path
) -> None:
    """Half of them end within the drain. Who comes meanwhile hears 503 and when to come back, on an old
    connection and on a new one."""
    stage = set_stage("vllm", granted="50.00")
    gateway = start_gateway(tmp_path, SLUICE_DRAIN_S="15", SLUICE_LEASE_S="30")
    try:
        streams = asyncio.run(_drain(gateway, stage.token, stage.slug))
        exit_code = gateway.child.popen.wait(30)
    finally:
        gateway.stop()
    assert exit_code == 0, gateway.log()
    assert pending_holds(stage.tenant_id) == 0
    assert all(stream.is_done or stream.is_cut for stream in streams)
    assert all(stream.is_done for stream in streams[1::2])
    assert not any(stream.is_done for stream in streams[::2])
    usage = usage_of(stage.tenant_id)
    assert len(usage) == MANY
    billed = sum(record["completion_tokens"] for (record,) in usage.values())
    assert billed == sum(stream.words for stream in streams)
    assert_audit_holds()
