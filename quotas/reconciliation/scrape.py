"""Asks backends for their counters. Network only: nothing here touches the database."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import aiohttp

from models_catalog.engines import ADAPTERS, CounterReading, UnreadableCounters

MAX_PAGE_BYTES = 8 * 2**20
MAX_AT_A_TIME = 32
MAX_ERROR = 200


@dataclass(frozen=True, slots=True)
class Target:
    """A backend to ask. `refusal` says why it cannot even be asked."""

    backend_id: UUID
    engine: str
    base_url: str
    credential: str | None = field(repr=False)
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What came of asking one backend: a reading, or an error in a few words. Monotonic seconds."""

    backend_id: UUID
    asked_s: float
    answered_s: float
    reading: CounterReading | None
    error: str


def scrape_all(targets: Sequence[Target], *, timeout_s: float) -> list[Scrape]:
    """Ask all of them, some at a time; one that fails or hangs costs the others nothing but its slot.

    timeout_s: for a whole answer of one backend.
    """
    return asyncio.run(_scrape_all(targets, timeout_s))


async def _scrape_all(targets: Sequence[Target], timeout_s: float) -> list[Scrape]:
    slots = asyncio.Semaphore(MAX_AT_A_TIME)
    # A page is read as it was sent: a compressed one could unfold to any size.
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:

        async def one(target: Target) -> Scrape:
            async with slots:
                asked_s = time.monotonic()
                reading, error = None, target.refusal
                if not error:
                    reading, error = await _scrape(session, target)
                return Scrape(target.backend_id, asked_s, time.monotonic(), reading, error[:MAX_ERROR])

        return await asyncio.gather(*(one(target) for target in targets))


async def _scrape(session: aiohttp.ClientSession, target: Target) -> tuple[CounterReading | None, str]:
    adapter = ADAPTERS[target.engine]
    headers = {"Accept": "text/plain", "Accept-Encoding": "identity"}
    if target.credential is not None:
        headers["Authorization"] = f"Bearer {target.credential}"
    try:
        # A redirect could carry the credential elsewhere.
        async with session.get(
            target.base_url.rstrip("/") + adapter.metrics_path, headers=headers, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                return None, f"answered HTTP {answer.status}"
            page = bytearray()
            async for chunk in answer.content.iter_any():
                page += chunk
                if len(page) > MAX_PAGE_BYTES:
                    return None, "the page is too large"
            found = {name.lower(): value for name, value in answer.headers.items()}
        return adapter.read_counters(page.decode("utf-8", "replace"), found), ""
    except TimeoutError:
        return None, "no answer in time"
    except UnreadableCounters as error:
        return None, str(error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # The message of a connection error may name addresses; its kind says enough.
        return None, f"not reachable ({type(error).__name__})"
