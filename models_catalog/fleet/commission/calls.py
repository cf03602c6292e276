"""Calls of a measurement: streamed, with made-up prompts, straight to the backend through its adapter."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from models_catalog.engines import Endpoint, EngineAdapter, EngineCall, UsageReport
from portal.kit.sse import EventSplitter, EventTooLarge, event_data

MAX_EVENT_BYTES: Final = 2**20
CONNECT_TIMEOUT_S: Final = 5.0
# Short words that every tokenizer knows; which token each becomes does not matter, only that they vary.
WORDS: Final = tuple(
    word
    for line in (
        "time year people way day man thing woman life child world school state family student group",
        "country problem hand part place case week company system program question work number night",
        "point home water room mother area money story fact month lot right study book eye job word",
    )
    for word in line.split()
)
TASK: Final = "Write a long story that uses these words, and do not stop before it is very long: "


@dataclass(frozen=True, slots=True)
class Target:
    """Where the calls go. base_url: without /v1."""

    base_url: str
    engine: EngineAdapter
    upstream_model: str
    credential: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One call. Times in seconds, from sending it: to its first token and to its end. `failure` is empty when
    it was served; counts are the backend's, or of its events where it says nothing."""

    started_s: float
    ttft_s: float
    duration_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    failure: str = ""


class Caller:
    """Sends calls; use it as an async context manager."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None
        self.samples: list[Sample] = []

    async def __aenter__(self) -> Caller:
        headers = {"Accept-Encoding": "identity", "User-Agent": "sluice-commission"}
        if self._target.credential:
            headers["Authorization"] = f"Bearer {self._target.credential}"
        self._session = aiohttp.ClientSession(
            # A pool would reuse connections that some engines close without a word.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers=headers,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, prompt: str, *, output_tokens: int) -> Sample:
        """One call to its end; it is also kept in `samples`. Does not raise because the backend fails."""
        started_s = time.monotonic()
        try:
            sample = await self._call(prompt, output_tokens, started_s)
        except (aiohttp.ClientError, OSError, EventTooLarge, ValueError) as error:
            # The time of the measurement is over; that a connection took too long is the backend's fault.
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise
            sample = Sample(started_s, 0.0, time.monotonic() - started_s, 0, 0, 0, type(error).__name__)
        self.samples.append(sample)
        return sample

    async def _call(self, prompt: str, output_tokens: int, started_s: float) -> Sample:
        assert self._session is not None
        target = self._target
        upstream = target.engine.write(
            EngineCall(
                endpoint=Endpoint.CHAT,
                # Of the form and length of an attempt's id, which some engines abort by prefix.
                attempt_id=f"att_{secrets.token_hex(13)}",
                upstream_model=target.upstream_model,
                content={"messages": [{"role": "user", "content": prompt}]},
                fields={"temperature": 1.0},
                output_cap_tokens=output_tokens,
                stream=True,
            )
        )
        reader = _Reader(target.engine)
        async with self._session.post(
            target.base_url + upstream.path,
            data=upstream.body,
            headers=dict(upstream.headers),
            allow_redirects=False,
        ) as answer:
            if answer.status != 200:
                failure = f"HTTP {answer.status}"
                return Sample(started_s, 0.0, time.monotonic() - started_s, 0, 0, 0, failure)
            async for chunk in answer.content.iter_any():
                if reader.read(chunk):
                    break
        return reader.sample(started_s)


class _Reader:
    """Reads one stream: when its first token came, and what the backend counted."""

    def __init__(self, engine: EngineAdapter) -> None:
        self._engine = engine
        self._splitter = EventSplitter(MAX_EVENT_BYTES)
        self._first_s = self._last_s = 0.0
        self._events = 0
        self._usage: UsageReport | None = None
        self._failed = False

    def read(self, chunk: bytes) -> bool:
        """True at the end mark."""
        now_s = time.monotonic()
        for event in self._splitter.feed(chunk):
            data = event_data(event)
            if data is None:
                continue
            if data == b"[DONE]":
                return True
            if self._engine.reports_usage(event):
                self._usage = self._engine.read_usage(data) or self._usage
            if _has_text(data):
                self._events += 1
                self._first_s = self._first_s or now_s
                self._last_s = now_s
            self._failed = self._failed or b'"error":{' in data
        return False

    def sample(self, started_s: float) -> Sample:
        now_s = time.monotonic()
        usage = self._usage
        output_tokens = usage.completion_tokens if usage is not None else self._events
        return Sample(
            started_s=started_s,
            ttft_s=(self._first_s or now_s) - started_s,
            duration_s=(self._last_s or now_s) - started_s,
            prompt_tokens=usage.prompt_tokens if usage is not None else 0,
            cached_tokens=usage.cached_tokens if usage is not None else 0,
            output_tokens=output_tokens,
            failure="" if self._events and not self._failed else "no answer",
        )


def make_prompt(words: int) -> str:
    """A prompt of about so many words that no cache has seen: it differs from its first word on."""
    return f"{secrets.token_hex(4)} {TASK}" + " ".join(random.choices(WORDS, k=words))


def _has_text(data: bytes) -> bool:
    try:
        event: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    choices = event.get("choices") if isinstance(event, Mapping) else None
    if not isinstance(choices, list):
        return False
    for choice in choices:
        delta = choice.get("delta") if isinstance(choice, Mapping) else None
        if isinstance(delta, Mapping) and any(
            delta.get(name) for name in ("content", "reasoning_content", "reasoning")
        ):
            return True
    return False


async def gather_level(
    caller: Caller, *, concurrency: int, rounds: int, words: int, output_tokens: int
) -> list[list[Sample]]:
    """So many workers at a time, each with `rounds` calls one after the other; the calls of each."""

    async def work() -> list[Sample]:
        return [await caller.call(make_prompt(words), output_tokens=output_tokens) for _ in range(rounds)]

    return list(await asyncio.gather(*(work() for _ in range(concurrency))))
