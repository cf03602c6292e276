"""The wire to Valkey: answers in order however they are cut, and silence that is told in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.testing import Services
from portal.kit import valkey
from portal.kit.valkey_wire import AWAY, ValkeyWire, WireAnswerError, encode, is_partial, read_answer

ANSWERS: list[tuple[bytes, Any]] = [
    (b":42\r\n", 42),
    (b":-1\r\n", -1),
    (b"+OK\r\n", b"OK"),
    (b"$5\r\nhe\r\no\r\n", b"he\r\no"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n$1\r\nx\r\n*1\r\n+y\r\n", [1, b"x", [b"y"]]),
]


def test_a_command_is_written_as_the_protocol_wants_it() -> None:
    assert encode(["SET", "é", 7, b"\x00"]) == (
        b"*4\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$1\r\n7\r\n$1\r\n\x00\r\n"
    )


@given(st.lists(st.sampled_from(ANSWERS), max_size=6), st.integers(0, 80))
def test_answers_are_read_from_as_much_as_is_there(answers: list[tuple[bytes, Any]], cut: int) -> None:
    whole = b"".join(encoded for encoded, _ in answers)
    found, at, there = [], 0, whole[:cut]
    while at < len(there):
        value, end = read_answer(there, at)
        if is_partial(value):
            break
        found.append(value)
        at = end
    assert found == [value for _, value in answers][: len(found)]
    value, end = read_answer(whole, at) if at < len(whole) else (None, at)
    assert not is_partial(value)
    assert end <= len(whole)


def test_an_error_is_an_answer() -> None:
    value, _ = read_answer(b"-NOSCRIPT No matching script\r\n", 0)
    assert isinstance(value, WireAnswerError)
    assert value.code == "NOSCRIPT"


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400\r\n", b":x\r\n", b"$?\r\n"])
def test_what_is_no_answer(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"answer|literal|invalid"):
        read_answer(garbage, 0)


async def ask(wire: ValkeyWire, *arguments: str | int) -> Any:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.ask(encode(arguments), answer.set_result)
    return await asyncio.wait_for(answer, 5)


@asynccontextmanager
async def wire_to(url: str, **options: Any) -> AsyncIterator[ValkeyWire]:
    client = valkey.connect(url)
    wire = ValkeyWire(client, timeout_s=0.3, pause_s=0.2, **options)
    yield wire
    await wire.close(1.0)
    await client.aclose()


async def test_many_questions_are_answered_in_order(services: Services) -> None:
    async with wire_to(services.valkey_url) as wire:
        answers = await asyncio.gather(*(ask(wire, "ECHO", number) for number in range(500)))
        assert answers == [str(number).encode() for number in range(500)]
        await wire.close(1.0)
        assert await ask(wire, "PING") == b"PONG"


async def test_a_wrong_command_harms_nobody_else(services: Services) -> None:
    async with wire_to(services.valkey_url) as wire:
        first, wrong, last = await asyncio.gather(ask(wire, "PING"), ask(wire, "NO"), ask(wire, "PING"))
        assert first == last == b"PONG"
        assert isinstance(wrong, WireAnswerError)


async def test_a_server_that_is_away_is_told_at_once_and_left_alone() -> None:
    reasons: list[str] = []
    async with wire_to("redis://127.0.0.1:1/0", on_away=reasons.append) as wire:
        assert await ask(wire, "PING") is AWAY
        assert not wire.is_open
        assert await ask(wire, "PING") is AWAY
        assert reasons == ["ConnectionRefusedError"]


async def test_a_server_that_hangs_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    reasons: list[str] = []
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with wire_to(f"redis://127.0.0.1:{port}/3", on_away=reasons.append) as wire:
            assert await asyncio.gather(*(ask(wire, "PING") for _ in range(3))) == [AWAY] * 3
            assert reasons == ["TimeoutError"]


async def test_a_lag_before_it_connects_does_not_keep_it_from_connecting(services: Services) -> None:
    client = valkey.connect(services.valkey_url)
    wire = ValkeyWire(client, timeout_s=0.5, pause_s=0.0)
    # What is left of a turn in which the time was over before the connecting had begun.
    first: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.ask(encode(["PING"]), first.set_result)
    wire._flush()
    wire._give_up("TimeoutError")
    assert await first is AWAY
    second: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.ask(encode(["PING"]), second.set_result)
    assert await second == b"PONG"
    await wire.close(1.0)
    await client.aclose()


async def test_an_answer_that_is_there_is_read_before_anybody_gives_up(services: Services) -> None:
    client = valkey.connect(services.valkey_url)
    reasons: list[str] = []
    wire = ValkeyWire(client, timeout_s=0.2, pause_s=1.0, on_away=reasons.append)
    for _ in range(2):
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        wire.ask(encode(["PING"]), answer.set_result)
        await asyncio.sleep(0.01)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop lags
        assert await answer == b"PONG"
    assert reasons == []
    await wire.close(1.0)
    await client.aclose()
