"""Hostile text passes unchanged, slow browsers hold their backends back, and nothing is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg import sql

from devstack.engines.testing import RunningEngine, sim
from portal.playground.tests.scripted import END, Backend, backend_of, event
from portal.playground.tests.stage import Stage, database, make_stage, requests_of, settled
from tests.database import connected, rows_of
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for
from tests.web_process import RunningWeb, running_web

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "[go](javascript:alert(1)) ![i](https://evil.example/x.png)",
    "\u202edetrevni\u202c \u2066isolated\u2069 \u200f",
    "\x00\x07\x1b[31m \ufeff \U0001f44d\u200d\ufe0f \r\n\n ```\ndata: [DONE]\n\n",
    '"}]}\n\ndata: {"error":{"code":"fake"}}\n\n',
    "]]></script>--> {{ 7*7 }} {% now %}",
)


async def test_hostile_text_passes_through_the_socket_unchanged(web: RunningWeb) -> None:
    async with backend_of([*(event(text) for text in HOSTILE), END]) as backend:
        stage = await database(make_stage, web, backend.url)
        async with stage.page() as page:
            ran = await page.run("hello")
    assert ran.text == "".join(HOSTILE)
    assert ran.messages[-1]["type"] == "done"
    assert ran.one("done")["completion_tokens"] == 9


async def test_events_that_are_cut_anywhere_arrive_once(web: RunningWeb) -> None:
    """Chunk borders in the middle of signs, lines and events lose and double nothing."""
    whole = b"".join(event(f"{number}\u4f60\U0001f600 ") for number in range(120)) + END
    pieces = [whole[start : start + 7] for start in range(0, len(whole), 7)]
    async with backend_of(pieces) as backend:
        stage = await database(make_stage, web, backend.url)
        async with stage.page() as page:
            ran = await page.run("hello")
    assert ran.text == "".join(f"{number}\u4f60\U0001f600 " for number in range(120))


async def test_half_a_surrogate_pair_is_shown_as_a_replacement(web: RunningWeb) -> None:
    async with backend_of([event("a"), event("\ud83d"), event("b"), END]) as backend:
        stage = await database(make_stage, web, backend.url)
        async with stage.page() as page:
            ran = await page.run("hello")
    assert ran.text == "a\ufffdb"


async def test_a_browser_that_takes_nothing_holds_its_backend_back(web: RunningWeb) -> None:
    pieces = [event("x" * 2**16)] * 800
    async with backend_of([*pieces, END]) as backend:
        stage = await database(make_stage, web, backend.url)
        async with stage.page(max_queue=1) as page:
            await page.begin("hello")
            stalled = await _still(backend)
            assert stalled < len(pieces) * 2**16 / 2, "the backend was not held back"
            ran = await page.hear_until("done")
    assert len(ran.text) == 800 * 2**16


async def _still(backend: Backend) -> int:
    """The count once it has not moved for half a second."""
    async with asyncio.timeout(20):
        while True:
            before = backend.sent_bytes
            await asyncio.sleep(0.5)
            if before and backend.sent_bytes == before:
                return before


@pytest.fixture(scope="module")
def impatient_web(gateway: RunningGateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWeb]:
    """A web process that waits a second for browsers and backends."""
    with running_web(tmp_path_factory.mktemp("impatient"), SLUICE_IDLE_TIMEOUT_S="1") as running:
        yield running


async def test_a_browser_that_takes_nothing_for_long_is_cut(impatient_web: RunningWeb) -> None:
    pieces = [event("x" * 2**16)] * 800
    async with backend_of([*pieces, END]) as backend:
        stage = await database(make_stage, impatient_web, backend.url)
        async with stage.page(max_queue=1) as page:
            await page.begin("hello")
            ids = await asyncio.to_thread(wait_for, lambda: requests_of(stage.tenant), 10.0)
            hold = await asyncio.to_thread(settled, ids[0])
            page.connection.transport.abort()
    assert rows_of("quotas_attempt", request_id=ids[0])[0]["outcome"] == "CLIENT_GONE"
    assert hold["usage"]["completion_tokens"] < 800


async def test_prompts_and_answers_are_kept_nowhere(slow_stage: Stage, slow_engine: RunningEngine) -> None:
    """Neither in any table nor in the log of the process, not even of calls that fail."""
    canary = f"canary-{uuid4().hex}"
    async with slow_stage.page() as page:
        assert (await page.run(f"{canary} {sim(tokens=4)}")).messages[-1]["type"] == "done"
        assert (await page.run(f"{canary} {sim(tokens=4, fault='status:500')}")).of("error")
        await page.say({"type": "run", "id": 1, "messages": [{"role": canary, "content": canary}]})
        assert (await page.hear())["code"] == "unreadable"
        await page.begin(f"{canary} {sim(tokens=500)}")
        await page.hear_until("delta")
    slow_engine.wait_idle()
    for request_id in requests_of(slow_stage.tenant):
        settled(request_id)
    assert canary not in slow_stage.web.log()
    assert _tables_with(canary) == []


async def test_answers_are_kept_nowhere(web: RunningWeb) -> None:
    canary = f"canary-{uuid4().hex}"
    async with backend_of([event(canary), event(" and more"), END]) as backend:
        stage = await database(make_stage, web, backend.url)
        async with stage.page() as page:
            assert canary in (await page.run("hello")).text
    assert canary not in web.log()
    assert _tables_with(canary) == []


def _tables_with(text: str) -> list[str]:
    """The tables that hold a text in any column."""
    with connected("owner") as connection:
        # The owner is subject to the walls as well; a copy of the rows is what a backup would hold.
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            )
        ]
    found = []
    for role in ("owner", "operator"):
        with connected(role) as connection:
            for table in tables:
                query = sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text LIKE %s").format(
                    sql.Identifier(table)
                )
                row = None
                if connection.execute("SELECT has_table_privilege(%s, 'SELECT')", (table,)).fetchone() == (
                    True,
                ):
                    row = connection.execute(query, (f"%{text}%",)).fetchone()
                if row is not None and row[0]:
                    found.append(table)
    return found
