"""The gateway's HTTP/1.1 at its edges: versions, methods, requests one after another, and other servers."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from devstack.engines.testing import RunningEngine, sim
from portal.gateway.asgi import Gateway
from portal.gateway.tests.stage import Stage, make_stage, on, stored
from portal.kit.ids import PREFIXES, parse_public_id
from tests.gateway_process import RunningGateway


@pytest.fixture(scope="module")
def stage(gateway: RunningGateway, engines: dict[str, RunningEngine]) -> Stage:
    return make_stage(gateway, on(engines["vllm"], "vllm"))


def connect(gateway: RunningGateway) -> socket.socket:
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of an answer with a length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head)
    assert found is not None
    while len(body) < int(found[1]):
        body += connection.recv(65536)
    return head, body


def chat(stage: Stage, version: str = "1.1", *, stream: bool = False, extra: str = "") -> bytes:
    body = json.dumps(stage.body(sim(tokens=3), stream=stream)).encode()
    return (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: Bearer {stage.tenant.key.token}\r\n{extra}\r\n"
    ).encode() + body


def test_one_connection_serves_one_request_after_another(stage: Stage) -> None:
    with connect(stage.gateway) as connection:
        ids = set()
        for _ in range(3):
            connection.sendall(chat(stage))
            head, body = read_answer(connection)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert json.loads(body)["usage"]["completion_tokens"] == 3
            ids |= set(re.findall(rb"x-request-id: (\S+)", head))
        assert len(ids) == 3


def test_a_body_that_comes_byte_by_byte(stage: Stage) -> None:
    with connect(stage.gateway) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in chat(stage):
            connection.sendall(bytes([byte]))
        head, _ = read_answer(connection)
        assert head.startswith(b"HTTP/1.1 200")


def test_a_chunked_body(stage: Stage) -> None:
    whole = chat(stage)
    head, _, body = whole.partition(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
    pieces = [body[at : at + 20] for at in range(0, len(body), 20)]
    with connect(stage.gateway) as connection:
        connection.sendall(head + b"\r\n\r\n")
        for piece in [*pieces, b""]:
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        head, _ = read_answer(connection)
        assert head.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("stream", [False, True])
def test_an_old_client_gets_an_answer_that_ends_with_the_connection(stage: Stage, stream: bool) -> None:
    with connect(stage.gateway) as connection:
        connection.sendall(chat(stage, "1.0", stream=stream))
        answer = read_all(connection)
    assert b"connection: close\r\n" in answer
    assert b"chunked" not in answer
    assert answer.endswith(b"data: [DONE]\n\n" if stream else b"}")


def test_the_connection_ends_when_the_client_says_so(stage: Stage) -> None:
    with connect(stage.gateway) as connection:
        connection.sendall(chat(stage, extra="Connection: close\r\n"))
        assert b"connection: close\r\n" in read_all(connection)


def test_a_client_that_wants_to_be_asked_for_its_body(stage: Stage) -> None:
    head, _, body = chat(stage, extra="Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with connect(stage.gateway) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 200")


def test_a_client_that_offers_an_upgrade_is_served_without(stage: Stage) -> None:
    with connect(stage.gateway) as connection:
        connection.sendall(chat(stage, extra="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"))
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 200")


def test_the_head_of_an_answer_has_no_body(stage: Stage) -> None:
    with connect(stage.gateway) as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00", b"HELO x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_gets_an_answer_of_its_own(stage: Stage, garbage: bytes) -> None:
    with connect(stage.gateway) as connection:
        connection.sendall(garbage)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_http"
    parse_public_id(PREFIXES["request"], error["request_id"])
    assert error["request_id"].encode() in head


def test_two_requests_in_one_packet_end_the_connection(stage: Stage) -> None:
    with connect(stage.gateway) as connection:
        connection.sendall(chat(stage) + chat(stage))
        with pytest.raises((ConnectionResetError, AssertionError)):
            assert read_all(connection)


async def test_any_asgi_server_can_run_the_gateway() -> None:
    """What a call needs is tested on our own server; here only that requests and answers find their way."""
    runtime: Any = None
    gateway = Gateway(runtime, max_body_bytes=1000, body_timeout_s=1, metrics_token=None)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    for path, status in (("/healthz", 200), ("/nowhere", 404)):
        sent.clear()
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "client": ("127.0.0.1", 1)}
        await gateway(scope, receive, send)
        start, body = sent
        assert (start["type"], start["status"]) == ("http.response.start", status)
        assert b"x-request-id" in dict(start["headers"])
        assert json.loads(body["body"])
        assert not body["more_body"]


def test_a_call_on_a_kept_connection_is_billed_as_any_other(stage: Stage) -> None:
    answer = stage.play_stream(tokens=4)
    usage = stored(answer.request_id).usage
    assert usage is not None
    assert usage["completion_tokens"] == 4


def test_what_is_left_of_the_limits_is_told(stage: Stage) -> None:
    from quotas.models import LimitKind
    from tests.limits import limit_calls
    from tests.waiting import wait_for

    limit_calls(stage.tenant.id, LimitKind.REQUESTS_RPM, 50)
    limit_calls(stage.tenant.id, LimitKind.TOKENS_TPM, 100_000)
    found = wait_for(lambda: _told(stage), 10, "headers about the limits")
    assert found["limit-requests"] == "50"
    assert 0 <= int(found["remaining-requests"]) < 50
    assert found["limit-tokens"] == "100000"
    assert 0 < int(found["remaining-tokens"]) < 100_000
    assert re.fullmatch(r"\d+\.\d{3}s", found["reset-requests"])
    assert re.fullmatch(r"\d+\.\d{3}s", found["reset-tokens"])
    limit_calls(stage.tenant.id, LimitKind.REQUESTS_RPM, 1)
    refused = wait_for(lambda: _refusal(stage), 10, "a refusal")
    assert refused["x-ratelimit-remaining-requests"] == "0"
    assert int(refused["retry-after"]) >= 1


def _told(stage: Stage) -> dict[str, str]:
    """By name without its beginning, once all six are there."""
    headers = stage.ask().headers
    told = {
        name.removeprefix("x-ratelimit-"): value for name, value in headers.items() if "ratelimit" in name
    }
    return told if len(told) == 6 else {}


def _refusal(stage: Stage) -> Any:
    answer = stage.ask()
    return answer.headers if answer.status == 429 else None
