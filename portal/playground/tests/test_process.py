"""The process around the sockets: it stops cleanly, and it serves pages whatever the data plane does."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx2 as httpx

from devstack.engines.testing import RunningEngine, sim
from portal.playground.tests.stage import Stage, cost_nanos, database, make_stage, settled
from tests.gateway_process import RunningGateway
from tests.web_process import start_web


async def test_a_stop_ends_runs_and_bills_what_was_delivered(
    gateway: RunningGateway, slow_engine: RunningEngine, tmp_path: Path
) -> None:
    web = start_web(tmp_path)
    try:
        stage = await database(make_stage, web, slow_engine.url, flavour="vllm")
        async with stage.page() as page:
            await page.begin(sim(tokens=3000, prompt=25), max_tokens=3000)
            ran = await page.hear_until("delta")
            while len(ran.text.split()) < 20:
                ran.messages.append(await page.hear())
            began_s = time.monotonic()
            code = await asyncio.to_thread(web.stop)
            assert time.monotonic() - began_s < 8
            assert code in (0, -signal.SIGTERM)
            assert await page.close_code() == 1012
    finally:
        web.stop()
    usage = settled(ran.request_id)["usage"]
    assert 20 <= usage["completion_tokens"] < 300
    assert usage["charged_nanos"] == cost_nanos(25, usage["completion_tokens"])
    assert not web.alarms()


async def test_pages_are_served_while_the_data_plane_is_away(
    gateway: RunningGateway, stage: Stage, tmp_path: Path
) -> None:
    web = start_web(tmp_path, DATABASE_URL_DATAPLANE="postgresql://nobody@127.0.0.1:9/nothing")
    try:
        async with httpx.AsyncClient(base_url=web.url, trust_env=False) as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/")).status_code == 200
        away = Stage(web, stage.tenant, stage.model, stage.person)
        async with away.page() as page:
            assert (await page.run("hello")).one("error")["code"] == "overloaded"
        assert await asyncio.to_thread(web.stop) in (0, -signal.SIGTERM)
    finally:
        web.stop()
