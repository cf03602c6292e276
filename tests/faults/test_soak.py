"""Hundreds of calls that fail and leave in every way at once: afterwards nothing lives, nothing is held."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import ExitStack
from typing import Any

from devstack.engines.options import Flavour
from devstack.engines.testing import sim, start_engine
from portal.gateway.tests.stage import Stage, held_nanos, make_stage, on
from tests.database import rows_of
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for

CALLS = 600
AT_A_TIME = 60
FLAVOURS: tuple[Flavour, ...] = ("vllm", "llamacpp", "sglang")
FAULTS = (
    "reset_before",
    "close_before",
    "close_after:3",
    "reset_after:4",
    "error_event_after:3",
    "no_done",
    "usage_null",
    "status:503",
    "nonsense",
)


def _request(chance: random.Random, stage: Stage) -> bytes:
    directive: dict[str, Any] = {
        "tokens": chance.choice((1, 5, 40)),
        "rate": chance.choice((0, 200)),
        "ttft_ms": chance.choice((0, 0, 20)),
    }
    if chance.random() < 0.6:
        directive["fault"] = chance.choice(FAULTS)
    body = stage.body(
        sim(**directive), stream=chance.random() < 0.6, max_tokens=64, n=chance.choice((1, 1, 1, 1, 2, 3))
    )
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        f"Authorization: Bearer {stage.tenant.key.token}\r\n\r\n"
    )
    return head.encode() + content


async def _call(address: tuple[str, int], request: bytes, leaves_after_s: float | None) -> str:
    """What became of one call: its status, or that the client left or was cut off."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        if leaves_after_s is not None:
            await asyncio.sleep(leaves_after_s)
            writer.transport.abort()
            return "left"
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
        return head.split()[1].decode()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        return type(error).__name__
    finally:
        writer.close()


async def _all(gateway: RunningGateway, stages: list[Stage], chance: random.Random) -> Counter[str]:
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(request: bytes, leaves_after_s: float | None) -> str:
        async with places:
            return await _call((host, int(port)), request, leaves_after_s)

    planned = [
        (_request(chance, chance.choice(stages)), chance.choice((None, 0.0, 0.003, None, 0.03, 0.1)))
        for _ in range(CALLS)
    ]
    return Counter(await asyncio.gather(*(one(*each) for each in planned)))


def test_nothing_is_left_after_calls_that_fail_and_leave(gateway: RunningGateway) -> None:
    with ExitStack() as stack:
        engines = [
            (flavour, stack.enter_context(start_engine(flavour, tokens_per_s=0))) for flavour in FLAVOURS
        ]
        stages = [make_stage(gateway, on(engine, flavour), granted="1000.00") for flavour, engine in engines]
        seen = asyncio.run(_all(gateway, stages, random.Random(5)))
        print(dict(seen))
        wait_for(
            lambda: all(held_nanos(stage.tenant) == 0 for stage in stages), 20, "every hold's resolution"
        )
    for stage in stages:
        attempts = rows_of("quotas_attempt", tenant_id=stage.tenant.id)
        holds = rows_of("quotas_hold", tenant_id=stage.tenant.id)
        assert [attempt["id"] for attempt in attempts if attempt["ended_at"] is None] == []
        # The gateway settled all of them itself; the sweeper had nothing to do.
        assert {hold["resolved_by"] for hold in holds} == {"GATEWAY"}
    assert set(seen) <= {"200", "502", "503", "left"}
