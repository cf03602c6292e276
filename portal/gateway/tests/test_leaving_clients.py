"""Clients that leave, dawdle, or take nothing at all."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psutil
import pytest

from devstack.engines.testing import RunningEngine, sim, start_engine
from portal.gateway.tests.scripted_backend import Exchange, ScriptedBackend
from portal.gateway.tests.stage import Stage, cost_nanos, held_nanos, make_stage, on, requests_of, stored
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def slow_engines() -> Iterator[dict[str, RunningEngine]]:
    """Engines that a client can leave in the middle: 100 tokens a second."""
    started: dict[str, RunningEngine] = {}
    try:
        for flavour in ("llamacpp", "vllm", "generic"):
            started[flavour] = start_engine(flavour, tokens_per_s=100)
        yield started
    finally:
        for engine in started.values():
            engine.stop()


@contextmanager
def open_call(stage: Stage, text: str, *, stream: bool) -> Iterator[socket.socket]:
    """A call on a bare socket, sent but not read; leaving closes the connection."""
    host, _, port = stage.gateway.url.removeprefix("http://").rpartition(":")
    body = json.dumps(stage.body(text, stream=stream, max_tokens=2000)).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {stage.tenant.key.token}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def only_request(stage: Stage) -> UUID:
    found = wait_for(lambda: requests_of(stage.tenant), 10, "the call's admission")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "generic"])
def test_a_client_that_leaves_in_the_middle(
    gateway: RunningGateway, slow_engines: dict[str, RunningEngine], flavour: str
) -> None:
    """The backend is aborted, and what was delivered is charged: at least what the client has read."""
    engine = slow_engines[flavour]
    stage = make_stage(gateway, on(engine, flavour))
    text = sim(tokens=2000)
    received = b""
    with open_call(stage, text, stream=True) as connection:
        while received.count(b'"w') + received.count(b'" w') < 20:
            received += connection.recv(4096)
    read = len(re.findall(rb'"content":" ?w\d+"', received))
    kept = stored(only_request(stage))
    engine.wait_idle()
    record = engine.requests()[-1]
    assert record["aborted"]
    assert record["generated_tokens"] < 2000
    assert kept.outcomes == ["CLIENT_GONE"]
    assert kept.usage is not None
    assert read <= kept.usage["completion_tokens"] <= record["sent_tokens"]
    assert kept.usage["completion_tokens"] < read + 50
    expected = cost_nanos(kept.usage["prompt_tokens"], kept.usage["completion_tokens"])
    assert kept.usage["charged_nanos"] == expected
    assert held_nanos(stage.tenant) == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("flavour", ["llamacpp", "vllm", "generic"])
def test_a_client_that_leaves_before_the_first_byte(
    gateway: RunningGateway, slow_engines: dict[str, RunningEngine], flavour: str, stream: bool
) -> None:
    engine = slow_engines[flavour]
    engine.reset()
    stage = make_stage(gateway, on(engine, flavour))
    with open_call(stage, sim(tokens=50, ttft_ms=60_000), stream=stream):
        engine.wait_running()
    kept = stored(only_request(stage))
    assert (kept.hold["state"], kept.usage, kept.outcomes) == ("VOIDED", None, ["CLIENT_GONE"])
    assert held_nanos(stage.tenant) == 0
    if flavour != "llamacpp":
        engine.wait_idle()


# Clients that dawdle.


def test_a_slow_client_holds_its_backend_back(gateway: RunningGateway) -> None:
    """While nobody reads, neither the gateway nor the kernel piles the answer up; then all of it arrives."""
    pieces, piece = 400, 256 * 1024
    sent = 0
    filler = "x" * piece
    event = b'data: {"id":"big","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % filler.encode()

    def script(exchange: Exchange) -> None:
        nonlocal sent
        exchange.connection.settimeout(30)
        exchange.begin_stream()
        for _ in range(pieces):
            exchange.chunk(event)
            sent += 1
        exchange.chunk(
            b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":400}}\n\ndata: [DONE]\n\n'
        )
        exchange.end_stream()
        exchange.close()

    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    with ScriptedBackend(script) as backend:
        stage = make_stage(gateway, ("generic", backend.url))
        with open_call(stage, "hello", stream=True) as connection:
            stalled_at = _wait_until_still(lambda: sent)
            assert stalled_at < pieces / 2, "the backend was not held back"
            assert process.memory_info().rss - before < 32 * 2**20
            received = _read_all(connection)
    assert received.count(filler.encode()) == pieces
    assert b"data: [DONE]" in received
    usage = stored(only_request(stage)).usage
    assert usage is not None
    assert usage["completion_tokens"] == 400


def _wait_until_still(value: Callable[[], int]) -> int:
    """The count once it has not moved for half a second."""
    still = threading.Event()
    last = -1
    for _ in range(60):
        now = value()
        if now == last and now > 0:
            return now
        last = now
        still.wait(0.5)
    raise AssertionError("the backend was never held back")


def _read_all(connection: socket.socket) -> bytes:
    """The body up to its last chunk, with the chunk marks inside."""
    received = bytearray()
    while not received.endswith(b"\r\n0\r\n\r\n"):
        piece = connection.recv(2**20)
        assert piece, "the stream broke off"
        received += piece
    return bytes(received)


def test_a_client_that_takes_nothing_is_cut(impatient_gateway: RunningGateway) -> None:
    """It is the client that is idle, not the backend; what it has taken is charged."""
    event = b'data: {"id":"big","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 2**18)

    def script(exchange: Exchange) -> None:
        exchange.connection.settimeout(30)
        exchange.begin_stream()
        for _ in range(400):
            exchange.chunk(event)

    with ScriptedBackend(script) as backend:
        stage = make_stage(impatient_gateway, ("generic", backend.url))
        with open_call(stage, "hello", stream=True) as connection:
            kept = stored(only_request(stage))
            # The connection ends too, and does not look like a whole answer.
            with pytest.raises((ConnectionResetError, AssertionError)):
                _read_all(connection)
    assert kept.outcomes == ["CLIENT_GONE"]
    assert kept.usage is not None
    assert 1 <= kept.usage["completion_tokens"] < 200
